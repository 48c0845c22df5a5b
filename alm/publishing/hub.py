"""To the Hub: create the repository, upload the folder in one commit, read back what arrived."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from alm.data.example import DataError

REPLACED = ("*.safetensors", "*.index.json", "codec/*")
"""What an upload of a model removes where the new folder lacks it: a stale shard would be loaded. Other files of the repository stay."""
# its first base is the HTTP client's own error, a lost connection among them; the client changes with the version
FAILURES: tuple[type[Exception], ...] = (HfHubHTTPError.__bases__[0], HFValidationError, OSError)
DENIED = (401, 403)


def require_login(repo: str) -> None:
    """Raise `DataError` before any work is done where nobody is logged in or the Hub is out of reach."""
    try:
        HfApi().whoami()
    except FAILURES as error:
        _explain(error, repo)


def push(
    folder: Path,
    repo: str,
    private: bool,
    revision: str | None,
    message: str,
    repo_type: str = "model",
    replaced: Sequence[str] = REPLACED,
) -> str:
    """Upload `folder` to the repository `repo` (made where it is not there) and return the commit.

    `replaced` are patterns of files that are removed where the folder lacks them. `private` decides for a new repository only;
    `revision` is a branch, made where it is not there. Raises `DataError` where the Hub refuses.
    """
    api = HfApi()
    try:
        api.create_repo(repo, private=private, repo_type=repo_type, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, repo_type=repo_type, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            repo_type=repo_type,
            folder_path=folder,
            commit_message=message,
            revision=revision,
            delete_patterns=list(replaced),
        )
    except FAILURES as error:
        _explain(error, repo)
    return str(commit.oid)


def verify(folder: Path, repo: str, commit: str, name: str) -> None:
    """Download the file `name` of the commit and raise `DataError` unless it is the folder's, byte by byte."""
    try:
        arrived = Path(HfApi().hf_hub_download(repo, name, revision=commit)).read_bytes()
    except FAILURES as error:
        _explain(error, repo)
    if arrived != (folder / name).read_bytes():
        raise DataError(f"{name} of {repo} at {commit} is not the one that was uploaded; push again")


def _explain(error: Exception, repo: str) -> NoReturn:
    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, LocalTokenNotFoundError):
        cure = "log in with `hf auth login`, or set HF_TOKEN to a token with write access"
    elif isinstance(error, OfflineModeIsEnabled):
        cure = "unset HF_HUB_OFFLINE"
    elif isinstance(error, HFValidationError):
        cure = "give --repo OWNER/NAME"
    elif status in DENIED or isinstance(error, RepositoryNotFoundError):
        cure = f"the token is not valid or may not write to {repo.partition('/')[0]}: take one with write access (hf auth login)"
    else:
        cure = "try again; the folder is whole and stays where it is"
    raise DataError(f"{repo}: the Hub refused: {str(error).splitlines()[0]}. {cure[0].upper()}{cure[1:]}") from error
