"""The judge against a real vLLM server, with a tiny model of random weights.

Its answers are rubbish. Left to itself it writes no JSON, so every score is missing; held to the
schema it writes valid answers or is cut off, and both must be told apart.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lmrrg.config.reward import JudgeConfig, RewardConfig, RewardParts
from lmrrg.engine.vllm_settings import engine_environment
from lmrrg.metrics.judge.client import Judge
from lmrrg.metrics.reward import RadCliQReward

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

REFERENCE = "Small left effusion. No pneumothorax."
REPORTS = ["Small left effusion.", "Large right effusion.", "The heart is enlarged.", "Clear."]
TEMPLATE = "{% for message in messages %}{{ message.content }}\n{% endfor %}"


def write_model(folder: Path) -> None:
    """Write a model of random weights whose tokens are bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<end>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", chat_template=TEMPLATE
    )
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        eos_token_id=0,
        bos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start vLLM's OpenAI server; yield its base address."""
    folder = tmp_path_factory.mktemp("judge")
    write_model(folder / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(folder / "model"), "--served-model-name", "tiny"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    command += ["--dtype", "float32", "--max-model-len", "4096", "--max-num-seqs", "8"]
    command += ["--kv-cache-memory-bytes", str(64 << 20)]
    environment = os.environ | engine_environment(1, gpu=False)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_until_ready(f"http://127.0.0.1:{port}/health", process, folder / "log")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def wait_until_ready(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(address, timeout=5, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            time.sleep(1)
    pytest.fail(f"vLLM's server did not start: {log.read_text(errors='replace')[-2000:]}")


def test_rubbish_is_missing_and_the_rest_of_the_batch_goes_on(server: str) -> None:
    judge = JudgeConfig(url=server, model="tiny", cache=None, max_tokens=24, timeout_s=60)
    settings = RewardConfig(parts=RewardParts(judge=1), judge=judge, timeout_s=600)
    scores = RadCliQReward(settings).score(
        [*REPORTS, ""], [REFERENCE] * 5, None, [True] * len([*REPORTS, ""])
    )
    # 24 bytes hold no answer, whether the server enforces the schema or not.
    assert scores.judge_missing.tolist() == [True] * 4 + [False]
    assert scores.valid.tolist() == [False] * 4 + [True]
    assert np.isfinite(scores.radcliq_v1).all()


def test_what_the_schema_forces_is_read_and_kept(server: str, tmp_path: Path) -> None:
    judge = JudgeConfig(
        url=server, model="tiny", cache=tmp_path, max_tokens=1500, timeout_s=200, batch=4
    )
    scores = Judge(judge).score(REPORTS, [REFERENCE] * 4)
    known = scores[~np.isnan(scores)]
    assert ((known >= 0) & (known <= 1)).all()
    kept = [path for path in tmp_path.rglob("*.json")]
    assert len(kept) == len(known)
    if len(known) == 4:
        nowhere = judge.model_copy(update={"url": "http://127.0.0.1:9/v1"})
        assert Judge(nowhere).score(REPORTS, [REFERENCE] * 4).tolist() == scores.tolist()


def test_an_unknown_model_is_missing(server: str) -> None:
    judge = JudgeConfig(url=server, model="other", cache=None, timeout_s=60)
    assert np.isnan(Judge(judge).score(REPORTS, [REFERENCE] * 4)).all()
