"""Which system answers: flags, and the system that they name. Loads nothing heavy before it has to."""

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alm.arguments import option
from alm.data.example import DataError
from alm.scoring.processes import launched
from alm.scoring.systems.base import System

if TYPE_CHECKING:
    from alm.chat.server import Server


@dataclass
class SystemArguments:
    """Flags that name a system; at most one of `model` and `server`."""

    model: str | None = option(
        None,
        "model to score, a local folder or a Hub id: a checkpoint of this project, or any audio-language model of Transformers "
        "(Qwen2-Audio, Audio Flamingo 3, Qwen-Omni, …)",
    )
    server: str | None = option(
        None, "ask an OpenAI-compatible server that takes audio instead, for example http://localhost:8000/v1"
    )
    server_model: str | None = option(None, "the model's name on the server")
    api_key_env: str | None = option(None, "name of the environment variable that holds the server's key")
    timeout: float = option(120.0, "seconds without the server's answer after which a request is tried again")
    codec: str | None = option(
        None, "codec to use instead of the one saved with the checkpoint; its fingerprint must agree"
    )
    device: str = option(
        "cpu",
        "where the model runs: cpu, cuda (of several processes each on its own GPU), cuda:1, …; auto spreads others' models over all GPUs",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", "of the model's weights in memory; auto: as saved"
    )
    backend: Literal["transformers", "vllm"] = option(
        "transformers", "what computes a checkpoint of this project; vllm (plain ones) wants a --batch_size of hundreds"
    )
    vllm_options: str = option("{}", 'arguments of vllm.LLM as JSON, such as {"gpu_memory_utilization": 0.8}')

    def __post_init__(self) -> None:
        if (self.server is None) != (self.server_model is None):
            raise ValueError("--server ADDRESS and --server_model NAME belong together")
        if self.api_key_env and self.server is None:
            raise ValueError("--api_key_env is a server's: give --server")
        if self.api_key_env and not os.environ.get(self.api_key_env):
            raise ValueError(
                f"--api_key_env: no environment variable {self.api_key_env} is set (the name of one, not the key)"
            )
        if not self.timeout > 0:
            raise ValueError(f"--timeout must be above 0, got {self.timeout}")
        self.vllm_settings()

    def vllm_settings(self) -> dict[str, Any]:
        """`--vllm_options`. Raises `ValueError` where it is no JSON object."""
        try:
            settings = json.loads(self.vllm_options)
        except json.JSONDecodeError as error:
            raise ValueError(f"--vllm_options {self.vllm_options}: not JSON ({error})") from error
        if not isinstance(settings, dict) or (settings and self.backend != "vllm"):
            raise ValueError(f"--vllm_options takes a JSON object, with --backend vllm; got {self.vllm_options}")
        return settings

    @property
    def system_told(self) -> str:
        """The system and where it runs, for a plan."""
        return f"{self.server_model} at {self.server}" if self.server else f"{self.model} on {self.device}"

    def load_system(self) -> System:
        """The system, ready to answer. Raises `ContractError`, `BackendError` where it is none, with what it lacks."""
        if self.server is not None:
            from alm.scoring.systems.server import ServerSystem

            return ServerSystem(self._server(self.server))
        reference = self.model or ""
        if is_ours(reference):
            return self._checkpoint(reference)
        from alm.chat.backend import BackendError
        from alm.chat.local import LocalModel
        from alm.scoring.systems.local import LocalSystem

        if self.codec is not None or self.backend != "transformers":
            raise BackendError(
                f"{reference} has no vocabulary contract: --codec and --backend are for this project's checkpoints; "
                "other people's models run in vLLM as a server (--server)"
            )
        try:
            return LocalSystem(LocalModel(reference, device=self._device(), dtype=self.dtype))
        except BackendError as error:
            raise BackendError(
                f"{error} (nor is it a checkpoint of this project: its config.json carries no vocabulary contract)"
            ) from error

    def _checkpoint(self, reference: str) -> System:
        """A checkpoint of this project in `--backend`."""
        if self.device == "auto":
            raise DataError(f"--device auto spreads other people's models; {reference} is this project's: cpu, cuda, …")
        if self.backend == "vllm":
            if launched().number > 1:
                raise DataError(
                    "--backend vllm starts its own processes: launch one, with --vllm_options '{\"tensor_parallel_size\": 2}' on two GPUs"
                )
            from alm.scoring.systems.vllm import VllmSystem

            chosen = {} if self.dtype == "auto" else {"dtype": self.dtype}
            return VllmSystem.load(reference, self.codec, self.device, {**chosen, **self.vllm_settings()})
        import torch

        from alm.scoring.systems.checkpoint import CheckpointSystem

        dtype = None if self.dtype == "auto" else getattr(torch, self.dtype)
        return CheckpointSystem.load(reference, self.codec, self._device(), dtype)

    def _device(self) -> str:
        """This process's. Raises `DataError` where several would share one."""
        if self.device == "auto" and launched().number > 1:
            raise DataError("--device auto gives one process all GPUs: launch one, or give --device cuda")
        return launched().device(self.device)

    def _server(self, address: str) -> "Server":
        from alm.chat.server import Server
        from alm.chat.transport import Http

        http = Http(address, os.environ[self.api_key_env] if self.api_key_env else None, self.timeout)
        if http.key_in_the_open:
            print(
                "warning: the key travels unencrypted to this server: https is missing in its address", file=sys.stderr
            )
        return Server(http, self.server_model or "")


def is_ours(reference: str) -> bool:
    """Whether a folder or Hub id is a checkpoint (or adapter) of this project: its `config.json` carries the vocabulary contract.

    A folder without `config.json` counts as ours, so that the doctor says what it lacks. Raises `ContractError` for neither.
    """
    from alm.adapters import is_adapter
    from alm.checkpoint_files import CheckpointFiles, local_folder

    folder = local_folder(reference, weights=False)
    if is_adapter(folder) or not (folder / "config.json").is_file():
        return True
    return "audio_vocabulary" in CheckpointFiles(folder).config
