"""The one interface of weight transport: bring the policy's new weights to every engine."""

from __future__ import annotations

from dataclasses import dataclass

from actors.policy import PolicyGroup
from actors.rollout import RolloutPool
from actors.weight_sync.update import SentDecoder, WeightUpdate


@dataclass(frozen=True)
class WeightSync:
    """Bring the policy's weights to every engine, as a numbered version with a checksum.

    Through host memory (``rollout.weight_transfer=memory``; on any machine, and always for a
    mixture with the SFT model):

    1. The policy ranks gather the weights (ZeRO-3 spreads them), and rank 0 writes the whole model
       with its checksum into host memory (:mod:`actors.weight_sync.policy_side`,
       :mod:`actors.weight_sync.host_memory`).
    2. Every engine reads it there: from mapped memory on a cluster of one node, through Ray's
       object store on more. It refuses a version that is not newer than its own, other names or
       shapes than its own, and bytes that do not give the checksum; then it loads the weights and
       drops its prefix cache (:mod:`actors.weight_sync.engine_side`, :mod:`lmrrg.engine`).

    From GPU to GPU (``nccl``, ``ipc``), where the decoder does not touch the host:

    1. All engines must be up, since an engine that starts would receive the steps of the transfer
       and its first weights in any order.
    2. The ranks send the decoder through vLLM's transfer backends
       (:mod:`actors.weight_sync.gpu_sender`); the engines sum up what arrives
       (:mod:`lmrrg.engine.gpu_receiver`).
    3. The rest (the visual half and the embedding table) follows through host memory, with the
       checksum of the decoder that was sent. An engine that received another one refuses it.
    4. Rank 0 also writes the whole model into host memory, for engines that are started later.
       Nobody waits for that copy; it is made while the engines generate.

    Engines that die: the pool replaces an engine that dies or is slower than
    ``rollout.start_timeout_s`` while it loads, and the replacement loads the current version before
    it generates anything. When one is lost during a GPU transfer, nothing is known about what the
    others received, so all of them are replaced.

    Ranks that die: every wait for the policy ends after ``ppo.timeout_s`` (NCCL itself would wait
    for ever for a dead peer) with PoolError ``actors_lost``, and the run starts again from its last
    training state. An engine that needs weights from a rank that is gone ends the same way.
    """

    policy: PolicyGroup
    rollouts: RolloutPool

    def sync(self, version: int, policy_fraction: float = 1.0) -> float:
        """Bring every engine, and every later replacement, to the policy's weights.

        Args:
            version: of these weights, greater than that of any before.
            policy_fraction: below 1 the weights are a mixture with the SFT model
                (:func:`lmrrg.ppo.mixture.mix`).

        Returns:
            Seconds from the finished copy in host memory until the last engine has loaded it.

        Raises:
            PoolError: ``actors_lost``; ``actor_error``, an engine refuses the weights.
        """
        # A mixture is computed on the host.
        if self.rollouts.uses_gpu_transfer and policy_fraction == 1:
            update = self._send_from_gpu(version)
        else:
            state, checksum = self.policy.state(policy_fraction)
            update = WeightUpdate(version, checksum, state)
        return self.rollouts.load_weights(update)

    def _send_from_gpu(self, version: int) -> WeightUpdate:
        self.rollouts.start()
        sent = self.policy.send_decoder(self.rollouts.actors())
        if sent is None:
            self.rollouts.renew("an engine was lost while weights were sent")
        rest, checksum = self.policy.state(decoder=False)
        whole, whole_checksum = self.policy.begin_state()
        return WeightUpdate(version, checksum, rest, SentDecoder(sent, whole, whole_checksum))
