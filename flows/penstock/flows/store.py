"""Result stores: where large results and cached ones are kept, by key. A local folder, or anything fsspec reaches.

`PENSTOCK_RESULTS` names the store that is meant where code names none: a folder, `file:///…`, `s3://bucket/prefix`
(with the extra `s3`), or another URL of fsspec's. By default it is `.penstock/results` in the working directory.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from penstock.events.ids import new_id
from penstock.flows.errors import ResultStoreError

VARIABLE = "PENSTOCK_RESULTS"
DEFAULT = ".penstock/results"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)\Z", re.DOTALL)


class StoreLock(Protocol):
    """Says who computes. Not a fence: what it guards must bear being done twice."""

    def try_acquire(self) -> bool:
        """Take it if it is free; never waits."""

    def release(self) -> None:
        """Give it back."""


class ResultStore(Protocol):
    """Bytes by key; keys are relative paths with `/`.  url: for messages, without credentials."""

    url: str

    def read(self, key: str) -> bytes | None:
        """What was written under the key, or None."""

    def write(self, key: str, body: bytes) -> None:
        """Keep it, whole or not at all; what was there is replaced."""

    def delete(self, key: str) -> None:
        """Forget it; nothing happens where nothing is."""

    def lock(self, key: str, lease: float) -> StoreLock:
        """A lock of that name.  lease: seconds after which a dead holder's lock is free, where a store needs one."""


class LocalStore:
    """A folder. Its locks are the operating system's: they end with the process that holds them."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder).absolute()
        self.url = str(self._folder)

    def read(self, key: str) -> bytes | None:
        try:
            return (self._folder / key).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, key: str, body: bytes) -> None:
        path = self._folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())  # the journal will refer to it: it has to outlive the machine's fall
            Path(unfinished).replace(path)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise

    def delete(self, key: str) -> None:
        (self._folder / key).unlink(missing_ok=True)

    def lock(self, key: str, lease: float) -> StoreLock:
        return _FileLock(self._folder / f"{key}.lock")


class FsspecStore:
    """A place that fsspec reaches, such as `s3://bucket/prefix`. Its locks are objects that run out by the clock.

    On S3 one of two who ask for a lock at once gets it; elsewhere, where no file can be made on condition, both may.
    """

    def __init__(self, url: str, **options: Any) -> None:
        """options: as the file system of that protocol takes them (`endpoint_url`, `key`, `secret` for s3)."""
        self._fs, root = _file_system(url, options)
        self._root = root.rstrip("/")
        self.url = _without_credentials(url)

    def read(self, key: str) -> bytes | None:
        try:
            found: bytes = self._fs.cat_file(self._path(key))
        except FileNotFoundError:
            return None
        return found

    def write(self, key: str, body: bytes) -> None:
        self._fs.pipe_file(self._made(key), body)

    def delete(self, key: str) -> None:
        try:
            self._fs.rm_file(self._path(key))
        except FileNotFoundError:
            return

    def create(self, key: str, body: bytes) -> bool:
        """Write it only if nothing is there; whether this did it."""
        try:
            self._fs.pipe_file(self._made(key), body, mode="create")
        except FileExistsError:
            return False
        return True

    def lock(self, key: str, lease: float) -> StoreLock:
        return _LeasedLock(self, f"{key}.lock", lease)

    def _made(self, key: str) -> str:
        """The path of a key, in a folder that is there."""
        path = self._path(key)
        protocol = self._fs.protocol
        if "s3" not in ((protocol,) if isinstance(protocol, str) else protocol):  # which has no folders
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        return path

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"


class _FileLock:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def try_acquire(self) -> bool:
        import fcntl  # not on Windows, where the rest of this module works

        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)  # the file stays: to remove it would let two hold locks on two files of one name
            self._file = None


class _LeasedLock:
    """An object with its end in it, by the clocks of the machines that share the store."""

    def __init__(self, store: FsspecStore, key: str, lease: float) -> None:
        self._store, self._key, self._lease = store, key, lease
        self._mine = b""

    def try_acquire(self) -> bool:
        mine = f"{time.time() + self._lease} {new_id()}".encode()
        if not self._store.create(self._key, mine):
            held = self._store.read(self._key)
            if held is not None and float(held.split()[0]) > time.time():
                return False
            self._store.delete(self._key)  # its holder has died
            if not self._store.create(self._key, mine):
                return False
        self._mine = mine
        return True

    def release(self) -> None:
        if self._mine and self._store.read(self._key) == self._mine:
            self._store.delete(self._key)
        self._mine = b""


def open_store(given: str | ResultStore | None = None) -> ResultStore:
    """The store that is named; without a name the one of PENSTOCK_RESULTS.  Raises ResultStoreError."""
    if given is None:
        return _opened(os.environ.get(VARIABLE) or DEFAULT, str(Path.cwd()))
    return _opened(given, str(Path.cwd())) if isinstance(given, str) else given


@lru_cache(maxsize=32)
def _opened(url: str, folder: str) -> ResultStore:
    """folder: the working directory, which relative paths are meant from."""
    found = _URL.match(url)
    if found is None:
        return LocalStore(Path(folder, url))
    return LocalStore(found[2]) if found[1] == "file" else FsspecStore(url)


def _file_system(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise ResultStoreError(f'the result store {url} needs fsspec: install the extra, "penstock[s3]"') from None
    try:
        return fsspec.core.url_to_fs(url, **options)  # type: ignore[no-any-return]  # fsspec has no types
    except (ImportError, ValueError) as error:
        raise ResultStoreError(
            f'the result store {_without_credentials(url)} cannot be used: {error}; s3:// needs "penstock[s3]"'
        ) from None


def _without_credentials(url: str) -> str:
    return re.sub(r"://[^/@]*@", "://", url)
