"""Load a new version of the weights into one engine, however it came."""

from __future__ import annotations

from actors.weight_sync.host_memory import StoredState
from actors.weight_sync.update import SentDecoder
from lmrrg.engine.interfaces import EngineError
from lmrrg.engine.report_engine import ReportEngine


def load_update(
    engine: ReportEngine,
    state: StoredState,
    version: int,
    checksum: str,
    sent: SentDecoder | None = None,
) -> None:
    """Bring the engine to ``version``; do nothing when it holds that already.

    Args:
        engine: whose weights are replaced.
        state: the whole model, or what is beside the decoder when that was ``sent``.
        version: of the weights.
        checksum: of ``state``.
        sent: the decoder that went from GPU to GPU.

    Raises:
        EngineError: ``checksum``, the decoder was damaged on its way; what
            :meth:`lmrrg.engine.report_engine.ReportEngine.update_weights` refuses.
        PeerLostError: ``weights_lost``, the policy rank with the weights is gone.
    """
    if version == engine.version:
        return
    if sent is None:
        engine.update_weights(state.tensors(), version, checksum)
        return
    received = engine.received()
    if received is None:
        # This engine was started after the decoder was sent.
        whole, whole_checksum = sent.fetch_whole()
        engine.update_weights(whole.tensors(), version, whole_checksum)
        return
    if received != sent.checksum:
        raise EngineError("checksum", f"the decoder of version {version} was damaged on its way")
    engine.update_weights(state.tensors(), version, checksum, decoder_received=True)
