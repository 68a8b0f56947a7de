"""Random reports, and BERT as transformers has it, for the tests of the published backend."""

from __future__ import annotations

import random
from pathlib import Path

from torch import Tensor
from transformers import BertConfig, BertModel

from tests.support.published.weights import WORDS


def random_report(rng: random.Random, longest: int = 30) -> str:
    words = [word for word in WORDS if not word.startswith("##")]
    return " ".join(
        rng.choices([*words, "cardiomegaly", "Effusions", "unheard-of"], k=rng.randint(1, longest))
    )


REPORTS = [random_report(random.Random(seed)) for seed in range(24)]


def plain_bert(weights: dict[str, Tensor], prefix: str, files: dict[str, Path]) -> BertModel:
    model = BertModel(BertConfig.from_json_file(files["config.json"])).eval()
    model.load_state_dict(
        {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
    )
    return model
