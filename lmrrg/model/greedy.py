"""Write greedy reports with the model itself, where no engine runs: validation during SFT."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lmrrg.model.generator import ReportGenerator
from lmrrg.vision.study_features import StudyFeatures


@torch.inference_mode()
def greedy_reports(
    model: ReportGenerator,
    features: StudyFeatures,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> list[str]:
    """Return one report for each of B studies: always the most probable token.

    It is what :meth:`lmrrg.engine.report_engine.ReportEngine.generate` writes at temperature 0, up
    to the rounding of float sums. All of them are written together, with a key-value cache.

    Args:
        model: in evaluation mode.
        features: of B studies.
        prompts: B lists of token ids, from :func:`~lmrrg.model.prompts.prompt_ids`.
        max_new_tokens: length at which a report is cut, tokens.
    """
    rows = model.prompt_embeddings(model.visual(features).tokens, prompts)
    length = max(len(row) for row in rows)
    # Padded on the left, so that all reports start at the same position.
    embeddings = torch.stack([F.pad(row, (0, 0, length - len(row), 0)) for row in rows])
    used = torch.tensor([[len(row)] for row in rows], device=embeddings.device)
    mask = torch.arange(length, device=embeddings.device) >= length - used
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    ids = _decode(model, embeddings, mask, positions, max_new_tokens)
    return [text.strip() for text in model.tokenizer.batch_decode(ids, skip_special_tokens=True)]


def _decode(
    model: ReportGenerator, embeddings: Tensor, mask: Tensor, positions: Tensor, tokens: int
) -> Tensor:
    """Return at most ``tokens`` new token ids of each row; after EOS there is only padding."""
    words = model.decoder.get_input_embeddings()
    end = model.tokenizer.eos_token_id
    is_over = torch.zeros(len(embeddings), dtype=torch.bool, device=embeddings.device)
    written: list[Tensor] = []
    cache = None
    while len(written) < tokens and not is_over.all():
        out = model.decoder(
            inputs_embeds=embeddings,
            attention_mask=mask.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        chosen = out.logits[:, -1].argmax(dim=-1)
        written.append(torch.where(is_over, model.tokenizer.pad_token_id, chosen))
        is_over |= chosen == end
        embeddings = words(written[-1][:, None])
        mask = F.pad(mask, (0, 1), value=True)
        positions = positions[:, -1:] + 1
    return torch.stack(written, dim=1)
