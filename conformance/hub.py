"""Checkpoints from the Hugging Face hub, for those who ask for one by its id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from conformance import checkpoint
from conformance.errors import InputError

# A repository may also hold single files of the same weights, quantised ones and other LoRAs: tens of gigabytes each.
PATTERNS = (
    checkpoint.INDEX,
    *(f"{name}/*" for name in (*checkpoint.COMPONENTS, *checkpoint.OPTIONAL)),
    f"{checkpoint.LORA_FILES}.safetensors",
)
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def snapshot(repository: str, report: Callable[[str], None]) -> Path:
    """Folder of ``org/name`` in the hub's cache: what is there is taken as it is, else the main revision is downloaded.

    InputError, one line: no such repository, no access to it, no network and nothing in the cache.
    """
    import huggingface_hub
    from huggingface_hub import errors

    def fetch(local: bool) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                repository,
                allow_patterns=list(PATTERNS),
                ignore_patterns=list(_PICKLED),
                local_files_only=local,
            )
        )

    report(f"{repository}: looking into the hub's cache")
    try:
        folder = fetch(local=True)
        checkpoint.verify(folder)
        return folder
    except (errors.LocalEntryNotFoundError, InputError):
        pass  # absent, or an interrupted download
    report(f"{repository}: downloading")
    where = f"--checkpoint {repository}"
    try:
        return fetch(local=False)
    except errors.GatedRepoError:  # a kind of the next
        raise InputError(
            f"{where}: access is restricted; accept its terms on the hub and log in (`hf auth login`)"
        ) from None
    except errors.RepositoryNotFoundError:
        raise InputError(f"{where}: no such folder here and no such repository on the hub, or a private one") from None
    except errors.LocalEntryNotFoundError as error:
        raise InputError(f"{where}: not in the hub's cache, and the hub cannot be reached ({_line(error)})") from None
    except Exception as error:  # the library lets those of its HTTP client through
        raise InputError(f"{where}: cannot be downloaded ({_line(error)})") from None


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
