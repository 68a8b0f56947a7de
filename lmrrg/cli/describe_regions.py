"""Let a large language model describe the 29 chest regions, through an OpenAI-compatible endpoint.

    python -m lmrrg.cli.describe_regions --endpoint http://localhost:8000/v1 \\
        --model NAME --out regions.yaml

Review the result before you use it with ``model.regions_file=regions.yaml``. A key, where the
endpoint wants one, is read from ``$OPENAI_API_KEY``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import httpx
import yaml

from lmrrg.anatomy import REGIONS
from lmrrg.errors import run_command
from lmrrg.files import atomic_writer, check_outputs
from lmrrg.model.region_queries import MAXIMUM_WORDS, MINIMUM_WORDS, RegionError, check_regions
from lmrrg.progress import progress_bar

_PROMPT = (
    "You are a chest radiologist. Describe the region '{region}' on a frontal chest radiograph in "
    "{low} to {high} words of plain running text: where it lies and its landmarks, how it looks "
    "when normal, and what abnormalities look like that occur there. Left and right are the "
    "patient's. No list, no heading, no closing remark."
)
_ATTEMPTS = 4
_MARGIN = 5
"""Words by which the asked range is narrower at each end than the accepted one: language models
do not count exactly."""


def describe(endpoint: str, model: str, *, key: str = "", timeout: float = 120.0) -> dict[str, str]:
    """Return a description for each region, in the order of :data:`~lmrrg.anatomy.REGIONS`.

    A text of the wrong length is asked for again, up to four times.

    Raises:
        RegionError: ``endpoint`` (it is no URL, cannot be reached, refuses, or answers in another
            format) or ``regions_words``.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        base = httpx.URL(endpoint.rstrip("/") + "/")
    except httpx.InvalidURL as error:
        raise RegionError("endpoint", f"{endpoint} is no URL: {error}") from error
    with httpx.Client(base_url=base, headers=headers, timeout=timeout) as client:
        texts = {
            region: _describe_region(client, model, region)
            for region in progress_bar(REGIONS, desc="regions", unit="region")
        }
    return check_regions(texts, endpoint)


def write_regions(path: Path, texts: dict[str, str], model: str) -> None:
    """Write the descriptions as YAML for :func:`~lmrrg.model.region_queries.load_regions`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(path) as out:
        out.write(
            f"# Descriptions of the 29 chest regions, written by {model}; review them before use.\n"
        )
        yaml.safe_dump(texts, out, sort_keys=False, allow_unicode=True, width=118)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; bad input ends with one sentence on stderr and exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--endpoint", required=True, help="base URL that ends with /v1")
    parser.add_argument("--model", required=True, help="name of the model at the endpoint")
    parser.add_argument("--out", required=True, type=Path, help="YAML file to write")
    args = parser.parse_args(argv)
    return run_command("describe_regions", lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    # The requests take long: a file that cannot be written is refused first.
    check_outputs([args.out])
    texts = describe(args.endpoint, args.model, key=os.environ.get("OPENAI_API_KEY", ""))
    write_regions(args.out, texts, args.model)
    return 0


def _describe_region(client: httpx.Client, model: str, region: str) -> str:
    prompt = _PROMPT.format(
        region=region, low=MINIMUM_WORDS + _MARGIN, high=MAXIMUM_WORDS - _MARGIN
    )
    messages = [{"role": "user", "content": prompt}]
    for _ in range(_ATTEMPTS):
        text = _ask(client, model, messages)
        words = len(text.split())
        if MINIMUM_WORDS <= words <= MAXIMUM_WORDS:
            return text
        complaint = (
            f"That has {words} words. Write it again with {MINIMUM_WORDS} to {MAXIMUM_WORDS} words."
        )
        # The conversation goes on, so that the model corrects its text in place of writing another.
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": complaint}]
    raise RegionError(
        "regions_words",
        f"{model} did not write {MINIMUM_WORDS} to {MAXIMUM_WORDS} words on {region}",
    )


def _ask(client: httpx.Client, model: str, messages: list[dict[str, str]]) -> str:
    request = {"model": model, "messages": messages, "temperature": 0.2, "max_tokens": 300}
    try:
        reply = client.post("chat/completions", json=request).raise_for_status().json()
        return " ".join(reply["choices"][0]["message"]["content"].split())
    except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RegionError(
            "endpoint", f"{client.base_url} gave no description: {type(error).__name__}: {error}"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
