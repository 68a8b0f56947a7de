"""The model card of an exported model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lmrrg.data.audit import audit_table
from lmrrg.evaluation.markdown import results_table
from lmrrg.evaluation.results import failed_checks
from lmrrg.own_code import is_own
from serve_app.schemas import NOTICE


def model_card(
    name: str,
    version: str,
    settings: Mapping[str, Any],
    encoder: str,
    audit: Mapping[str, Any] | None,
    results: Mapping[str, Any] | None,
) -> str:
    """Return the README.md of a model, in Markdown with the header that the hub reads.

    Args:
        name: of the model.
        version: of the checkpoint, as its reports name it; the folder's own differs by the card.
        settings: the checkpoint's ``config.json``.
        encoder: name of the image encoder.
        audit: of the run's studies; None where it is not known.
        results: of the run's evaluation of this model; None without one.
    """
    model = settings["model"]
    # Not a template for HTML: nothing is escaped.
    environment = Environment(  # nosec B701
        loader=PackageLoader("lmrrg.cli", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("model_card.md").render(
        name=name,
        version=version,
        notice=NOTICE,
        model=model,
        inputs=settings["inputs"],
        # A folder's name alone: the path says whose machine it was.
        decoder=Path(model["decoder"]["pretrained"] or model["decoder"]["architecture"]).name,
        encoder=encoder,
        has_own_encoder=is_own(encoder),
        provenance=_plain(settings["provenance"]),
        audit=None if audit is None else audit_table(audit),
        section=None if audit is None else audit["section"],
        results=None if results is None else _tables(results),
        failed=[] if results is None else failed_checks(results["systems"]),
    )


def _plain(provenance: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    return {
        name: value
        for name, value in provenance.items()
        if isinstance(value, (str, int, float, bool))
    }


def _tables(results: Mapping[str, Any]) -> str:
    """Return the tables of all systems: the baselines show what a number is worth."""
    return results_table(results)
