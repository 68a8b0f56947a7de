"""Generate reports with vLLM, for PPO rollouts, ``lmrrg evaluate`` and the HTTP service alike.

The decoder runs inside this process as a stock vLLM model. Visual tokens reach it as prompt
embeddings, which this module computes with the visual half of the network and the decoder's own
embedding table.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lmrrg.config.rollout import RolloutConfig
from lmrrg.engine.cpu_loader import DirectLoader
from lmrrg.engine.interfaces import EngineError, GeneratedReport, SelectableFeatures
from lmrrg.engine.vllm_settings import DTYPES, engine_environment, require_device, start_vllm
from lmrrg.model.checkpoint import load_checkpoint, load_full_state, state_checksum
from lmrrg.model.decoder import decoder_weights, embedding_name
from lmrrg.model.generator import Visual
from lmrrg.vision.study_features import StudyFeatures

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.logprobs import Logprob

T = TypeVar("T")

ENCODE_BATCH = 32
"""Studies that go through the visual half at once."""


def study_seeds(seed: int, studies: int) -> list[int]:
    """Return one seed per study, which depends on ``seed`` and the study's index alone."""
    return [_mixed_seed(seed, index) for index in range(studies)]


def _parts(count: int) -> list[list[int]]:
    """Cut the indices below ``count`` into parts of :data:`ENCODE_BATCH`."""
    starts = range(0, count, ENCODE_BATCH)
    return [list(range(start, min(start + ENCODE_BATCH, count))) for start in starts]


def _mixed_seed(seed: int, number: int) -> int:
    # Not seed + number: neighbouring seeds would give the same streams, shifted.
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class ReportEngine:
    """A checkpoint that generates reports.

    Args:
        checkpoint_dir: a directory of :func:`lmrrg.model.checkpoint.save_checkpoint`.
        rollout: sizes, dtype and length limit.
        seed: of the engine; sampling uses the seeds of :meth:`generate`.
        threads: torch threads on CPU.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        EngineError: ``engine_open`` (this process has an engine that is not closed), ``no_gpu``
            (vLLM is built for GPUs and sees none).

    Attributes:
        version: of the weights; 0 is the checkpoint itself.
        device: where all of it computes.
        model: the visual half (visual tokens, disease logits, attention maps). Its decoder is only
            the embedding table.
    """

    _is_open: ClassVar[bool] = False

    def __init__(
        self, checkpoint_dir: Path | str, rollout: RolloutConfig, *, seed: int = 0, threads: int = 1
    ):
        if ReportEngine._is_open:
            # Two engines would share vLLM's process groups, which the first one to close takes away
            # from the other.
            raise EngineError(
                "engine_open", "a process holds one engine at a time: close the other one first"
            )
        for name, value in engine_environment(threads, gpu=torch.cuda.is_available()).items():
            os.environ.setdefault(name, value)
        torch.set_num_threads(threads)
        self._rollout = rollout
        self.version = 0
        require_device()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = load_checkpoint(Path(checkpoint_dir))
        self._embedding_name = embedding_name(self.model.decoder)
        self._shapes = _state_shapes(self.model)
        self._max_length = min(
            self.model.config.decoder.max_positions,
            self.model.decoder.config.max_position_embeddings,
        )
        # vLLM holds the decoder; a second copy here would only cost memory.
        self.model.decoder = cast(Any, _EmbeddingTable(self.model.decoder.get_input_embeddings()))
        self.model.to(self.device)
        self._llm = start_vllm(Path(checkpoint_dir) / "decoder", rollout, self._max_length, seed)
        ReportEngine._is_open = True
        self._hidden_size = self._llm.llm_engine.model_config.get_hidden_size()
        self._direct: DirectLoader | None = None
        if rollout.tensor_parallel_size == 1:
            names = set(_decoder_part(self._shapes))
            self._direct = DirectLoader.of(self._runner().get_model(), names)

    def generate(
        self,
        features: SelectableFeatures,
        prompts: Sequence[Sequence[int]],
        *,
        samples: int = 1,
        temperature: float = 0.0,
        seed: int | Sequence[int] = 0,
        progress: Callable[[int], object] | None = None,
    ) -> list[list[GeneratedReport]]:
        """Generate ``samples`` reports for each of N studies.

        Args:
            features: of N studies.
            prompts: N lists of token ids, from :func:`lmrrg.model.prompts.prompt_ids`.
            samples: reports per study.
            temperature: 0 is greedy.
            seed: one seed, or one per study. A report depends on its study's seed and its own
                number alone: not on the other studies, their order or the batch size (up to the
                rounding of float sums).
            progress: called with the number of reports that have just finished.

        Raises:
            EngineError: ``prompt_count`` or ``seed_count`` (not N), ``prompt_too_long``,
                ``hidden_size``.
        """
        seeds = study_seeds(seed, len(prompts)) if isinstance(seed, int) else list(seed)
        if len(prompts) != len(features):
            raise EngineError("prompt_count", f"{len(prompts)} prompts for {len(features)} studies")
        if len(seeds) != len(prompts):
            raise EngineError("seed_count", f"{len(seeds)} seeds for {len(prompts)} studies")
        ids: list[str] = []
        reports: dict[str, GeneratedReport] = {}
        try:
            for part in _parts(len(prompts)):
                ids += self.submit(
                    self.encode(features.select(part)).tokens,
                    [prompts[i] for i in part],
                    samples=samples,
                    temperature=temperature,
                    seeds=[seeds[i] for i in part],
                )
            while len(reports) < len(ids):
                finished = self.step()
                reports |= finished
                if progress and finished:
                    progress(len(finished))
        finally:
            # After an error, no request may be left behind for the next call.
            self.abort(ids)
        ordered = [reports[name] for name in ids]
        return [ordered[start : start + samples] for start in range(0, len(ordered), samples)]

    @torch.inference_mode()
    def encode(self, features: StudyFeatures) -> Visual:
        """Run the visual half on N studies."""
        return self.model.visual(features.to(self.device))

    @torch.inference_mode()
    def submit(
        self,
        tokens: Tensor,
        prompts: Sequence[Sequence[int]],
        *,
        seeds: Sequence[int],
        samples: int = 1,
        temperature: float = 0.0,
    ) -> list[str]:
        """Begin ``samples`` reports for each of N studies; they join those that are being written.

        :meth:`step` writes them and names each by what this returns, N · ``samples`` names, those
        of a study together. All other arguments are as in :meth:`generate`.

        Args:
            tokens: visual tokens [N, 30, H] from :meth:`encode`.

        Raises:
            EngineError: ``prompt_too_long``, ``hidden_size``; nothing has begun then.
        """
        requests: list[Any] = []
        parameters: list[SamplingParams] = []
        every = self.model.prompt_embeddings(tokens, prompts)
        for study_seed, embeddings in zip(seeds, every, strict=True):
            self._check_prompt(embeddings)
            # vLLM takes prompts from the CPU.
            prompt = embeddings.to("cpu", DTYPES[self._rollout.dtype])
            for sample in range(samples):
                requests.append({"prompt_embeds": prompt})
                parameters.append(self._sampling(temperature, study_seed, sample))
        names = self._llm.enqueue(requests, parameters, use_tqdm=False)
        # vLLM appends random digits to its own number of a request, and reports under the number.
        return [name.rpartition("-")[0] for name in names]

    def step(self) -> dict[str, GeneratedReport]:
        """Compute the next token of every report that has begun; return those that are finished."""
        outputs = self._llm.llm_engine.step()
        return {out.request_id: self._report(out) for out in outputs if out.finished}

    def abort(self, names: Sequence[str]) -> None:
        """Give up reports, by their names of :meth:`submit`; finished ones are left out."""
        self._llm.llm_engine.abort_request(list(names))

    def update_weights(
        self,
        state: Mapping[str, Tensor],
        version: int,
        checksum: str,
        *,
        decoder_received: bool = False,
    ) -> None:
        """Load a newer version of the weights; nothing is loaded unless everything fits.

        Args:
            state: from :func:`lmrrg.model.checkpoint.full_state`; the whole model, or only what is
                beside the decoder.
            version: greater than that of what is loaded.
            checksum: of ``state``.
            decoder_received: whether the decoder came by :meth:`transfer`.

        Raises:
            EngineError: ``stale_version`` (not newer than what is loaded), ``bad_state`` (names or
                shapes), ``checksum``, or ``prefix_cache`` (old entries could not be dropped).
        """
        if version <= self.version:
            raise EngineError(
                "stale_version",
                f"version {version} is not newer than {self.version}, which is loaded",
            )
        _check_shapes(state, self._shapes_beside_vllm() if decoder_received else self._shapes)
        if (found := state_checksum(state)) != checksum:
            raise EngineError(
                "checksum", f"the weights of version {version} give {found}, not {checksum}"
            )
        load_full_state(self.model, state, decoder=False)
        decoder = _decoder_part(state)
        # Prompt embeddings are computed here, so the embedding table is held beside vLLM.
        embedding = cast(nn.Embedding, self.model.decoder.get_input_embeddings())
        with torch.no_grad():
            embedding.weight.copy_(decoder[self._embedding_name])
        if not decoder_received:
            self._reload(decoder)
        # Cached blocks of long prompts were computed with the old weights, and nothing else would
        # notice.
        if not self._llm.reset_prefix_cache():
            raise EngineError("prefix_cache", "the prefix cache is in use and was not reset")
        self.version = version

    def transfer(self, step: str, request: Mapping[str, Any] | None = None) -> None:
        """Take one step of vLLM's weight transfer.

        New weights count, and may be used, only after :meth:`update_weights`.

        Args:
            step: name of vLLM's method: ``init_weight_transfer_engine``, ``start_weight_update``, …
            request: its argument, or None for a method without one.
        """
        method = getattr(self._llm, step)
        if request is None:
            method()
        else:
            method(dict(request))

    def received(self) -> int | None:
        """Return the checksum of the decoder that came by :meth:`transfer` since the last call.

        None when none came.

        Raises:
            EngineError: ``checksum``, the processes of this engine received different weights.
        """
        found = set(self._llm.collective_rpc("take_received_checksum"))
        if len(found) > 1:
            raise EngineError("checksum", "the GPUs of an engine received different weights")
        return found.pop()

    def close(self) -> None:
        """Free the engine; a further one may then start in this process."""
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        gc.collect()
        ReportEngine._is_open = False

    def _check_prompt(self, embeddings: Tensor) -> None:
        # Checked here, since vLLM hangs on a wrong width.
        if embeddings.ndim != 2 or embeddings.shape[1] != self._hidden_size:
            raise EngineError(
                "hidden_size",
                f"a prompt of shape {tuple(embeddings.shape)}, "
                f"the decoder's width is {self._hidden_size}",
            )
        limit = self._max_length - self._rollout.max_new_tokens
        if len(embeddings) > limit:
            raise EngineError(
                "prompt_too_long",
                f"{len(embeddings)} tokens leave no room for a report: at most {limit}",
            )

    def _sampling(self, temperature: float, seed: int, sample: int) -> SamplingParams:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=temperature,
            seed=_mixed_seed(seed, sample),
            max_tokens=self._rollout.max_new_tokens,
            logprobs=0,
            detokenize=False,
        )

    def _report(self, output: RequestOutput) -> GeneratedReport:
        completion = output.outputs[0]
        ids = list(completion.token_ids)
        steps = cast("list[dict[int, Logprob]]", completion.logprobs)
        return GeneratedReport(
            token_ids=ids,
            logprobs=[step[token].logprob for step, token in zip(steps, ids, strict=True)],
            text=cast(str, self.model.tokenizer.decode(ids, skip_special_tokens=True)).strip(),
            finished=completion.finish_reason == "stop",
        )

    def _reload(self, decoder: Mapping[str, Tensor]) -> None:
        """Replace vLLM's weights."""
        # Not by `load_weights`, which fails on CPU, where they are packed; `reload_weights`
        # unpacks.
        if self._rollout.tensor_parallel_size == 1:
            if self._direct is not None:
                self._direct.load(decoder)
            else:
                self._runner().reload_weights(weights_iterator=iter(decoder.items()))
            return
        # Each GPU has a process of its own; they read the weights from a file in shared memory.
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # nosec B108
            save_file(dict(decoder), Path(folder) / "model.safetensors")
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})

    def _shapes_beside_vllm(self) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of what is held beside vLLM: visual half and embedding table."""
        embedding = f"decoder.{self._embedding_name}"
        shapes = dict(self._shapes)
        for name in self._shapes:
            if name.startswith("decoder.") and name != embedding:
                del shapes[name]
        return shapes

    def _runner(self) -> Any:
        return cast(Any, self._llm.llm_engine).model_executor.driver_worker.worker.model_runner


class _EmbeddingTable(nn.Module):
    """What is left of the decoder in this module: vLLM holds the rest."""

    def __init__(self, embedding: nn.Module):
        super().__init__()
        self.embedding = embedding

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding


def _decoder_part(state: Mapping[str, T]) -> dict[str, T]:
    """Return the decoder's entries of a full state, under the decoder's own names."""
    prefix = "decoder."
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}


def _state_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of everything that a full state must hold."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith("decoder."):
            shapes[f"visual.{name}"] = tuple(tensor.shape)
    for name, tensor in decoder_weights(model.decoder):
        shapes[f"decoder.{name}"] = tuple(tensor.shape)
    return shapes


def _check_shapes(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    if wrong := sorted(state.keys() ^ shapes.keys()):
        raise EngineError("bad_state", f"weights are missing or unexpected: {', '.join(wrong[:5])}")
    if wrong := sorted(name for name, held in state.items() if tuple(held.shape) != shapes[name]):
        raise EngineError("bad_state", f"weights of another shape: {', '.join(wrong[:5])}")
