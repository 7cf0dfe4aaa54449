"""Run folders: `runs/<name>/` holds a model, its manifest and its figures, whole or not at all.

A stage works in `runs/.<name>.partial/` and renames it when everything is on the disk. An
interrupted stage leaves the partial folder, from which `--resume` continues.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from bloodedge import hosts
from bloodedge._version import __version__
from bloodedge.errors import BloodedgeError, DataError, RunError, in_words
from bloodedge.files import fsync_folder, read_json, remove_partial_files, sha256_of, write_json
from bloodedge.hardware import describe_hardware
from bloodedge.swap import check_swap, end_swap, replaced, swap_in

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9._+-]+")
# What a full disk, or a folder that cannot be one or be written, gives; NumPy gives no number.
_UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, None),
)
# What of a manifest holds more fields.
_OBJECTS = ("config", "data", "files", "metrics", "model", "parents")
# What options are taken from where they are not typed, and the value that goes without saying.
_VARIABLES = {
    "BLOODEDGE_DATA": ("--data", ""),
    # Set by `use_backend`, too.
    "KERAS_BACKEND": ("--backend", "tensorflow"),
    "KERAS_DISTRIBUTION_JOB_ADDRESSES": ("--coordinator", ""),
    "KERAS_DISTRIBUTION_NUM_PROCESSES": ("--hosts", ""),
    "KERAS_DISTRIBUTION_PROCESS_ID": ("--host", ""),
}
_PACKAGES = (
    "numpy",
    "keras",
    "tensorflow",
    "jax",
    "torch",
    "tf_keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "opencv-python-headless",
    "medmnist",
)


def runs_root() -> Path:
    """Return the folder that holds the runs: `BLOODEDGE_RUNS`, or `runs` here."""
    return Path(os.environ.get("BLOODEDGE_RUNS", "runs"))


@dataclass(frozen=True)
class Manifest:
    """What made a run, and what came out (`manifest.json`).

    Attributes:
        kind: the stage: `train`, `distill`, `export`, ...
        name: the run's name, which is also its folder's.
        config: the stage's settings.
        data: the data set's description, fingerprint included.
        parents: SHA-256 of each model this one was made from, by role (`teacher`, `parent`).
        model: what is needed to rebuild and use the model: registry name, arguments, classes.
        metrics: figures by split.
        seed: the seed of every random draw.
        duration_s: seconds of work, summed over resumed sessions.
        resumed: how often the run was continued after an interruption.
        command: the command line that made it, with settings from the environment in front.
        created: when, as UTC in ISO 8601.
        packages: versions of the libraries that matter.
        hardware: what it ran on.
        files: size in bytes and SHA-256 of each file in the folder, by name.
        bloodedge: the version that made it.
        schema_version: of this layout.
    """

    kind: str
    name: str
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    parents: Mapping[str, str]
    model: Mapping[str, Any]
    metrics: Mapping[str, Any]
    seed: int
    duration_s: float
    resumed: int = 0
    command: str = field(default_factory=lambda: _command_line())
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    packages: Mapping[str, str] = field(default_factory=lambda: package_versions())
    hardware: Mapping[str, Any] = field(default_factory=lambda: describe_hardware())
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bloodedge: str = __version__
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and the manifest read from it."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.manifest["name"])


def is_name(text: str) -> bool:
    """Whether a run can have that name."""
    return bool(_NAME.fullmatch(text))


def check_name(name: str) -> str:
    """Return `name` if it can be a run's name, so that no name escapes the runs folder.

    Raises:
        RunError: it holds a path separator, starts with a dot, or is too long.
    """
    if not is_name(name):
        raise RunError(
            f"{name!r} cannot be a run's name",
            expected="letters, digits, '.', '_', '+' and '-', at most 100, the first no dot",
            fix="choose another --name",
        )
    return name


def usual_name(text: str) -> str:
    """Return a run's name made of a file's, with underscores for what no run's name can hold.

    Only the length is left to `check_name`.
    """
    return _UNNAMEABLE.sub("_", text).lstrip("._+-")


def metrics_of(name: str) -> dict[str, Any]:
    """Return the figures of a finished run in the runs folder.

    Raises:
        RunError: there is none of that name, or its manifest is damaged.
    """
    found: dict[str, Any] = load_run(runs_root() / name).manifest["metrics"]
    return found


def is_finished(name: str) -> bool:
    """Return whether a finished run of that name is in the runs folder."""
    return (runs_root() / name / MANIFEST).is_file()


def is_interrupted(name: str, root: Path | None = None) -> bool:
    """Return whether something is left of a run of that name that was not finished."""
    partial = partial_folder(name, root)
    return partial.is_dir() and any(partial.iterdir())


def partial_folder(name: str, root: Path | None = None) -> Path:
    """Return where a run is until it is finished; by default below `runs_root()`."""
    return (root or runs_root()) / f".{name}.partial"


def load_run(folder: Path, name: str = MANIFEST) -> Run:
    """Read a finished run's manifest, which is called otherwise where several are recorded.

    Raises:
        RunError: the folder is no run of a schema this version reads.
    """
    try:
        manifest = read_json(folder / name)
    except DataError as error:
        raise RunError(f"{folder} is not a finished run ({error})", fix="move it away") from error
    found = manifest.get("schema_version")
    if found != SCHEMA_VERSION:
        newer = isinstance(found, int) and found > SCHEMA_VERSION
        raise RunError(
            f"{folder} has manifest schema {str(found)[:20]!r}",
            expected=f"schema {SCHEMA_VERSION}",
            fix="update bloodedge here to the version that wrote it" if newer else "",
        )
    missing = [key for key in ("kind", "name", "model", "data", "metrics") if key not in manifest]
    if missing:
        raise RunError(f"{folder / name} lacks {', '.join(missing)}")
    wrong = [key for key in _OBJECTS if not isinstance(manifest.get(key, {}), dict)]
    if wrong:
        raise RunError(f"{folder / name} is damaged: {', '.join(wrong)} is no JSON object")
    return Run(folder, {**manifest, "created": _date(manifest.get("created"))})


def _date(created: object) -> str:
    """Return a date by which runs can be sorted: in UTC as we write it, or empty for none."""
    try:
        found = datetime.fromisoformat(str(created)[:40])
        found = found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return ""
    return found.isoformat(timespec="seconds")


def run_folders(root: Path) -> list[Path]:
    """Return the folders with a finished run, by name; not those whose manifest is another tool's.

    Damaged ones are among them, so that reading them says what is wrong.
    """
    manifests = sorted(path for path in root.glob(f"[!.]*/{MANIFEST}") if path.is_file())
    return [path.parent for path in manifests if _is_ours(path)]


def _is_ours(manifest: Path) -> bool:
    try:
        return "schema_version" in read_json(manifest)
    except DataError:
        return True


class RunFolder:
    """A run being made: files go to `path`; `commit` makes them the run."""

    def __init__(self, name: str, path: Path, final: Path) -> None:
        self.name = name
        self.path = path
        self.final = final

    def commit(self, manifest: Manifest, *, scratch: Sequence[str] = ()) -> Run:
        """Write the manifest with every file's digest, flush, and rename the folder into place.

        Args:
            manifest: what to record.
            scratch: files, such as checkpoints, that are deleted once the run is in its place.
        """
        names = sorted(p for p in self.path.rglob("*") if p.is_file() and p.name[0] != ".")
        files = {
            p.relative_to(self.path).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256_of(p)}
            for p in names
        }
        write_json(self.path / MANIFEST, {**asdict(manifest), "files": files})
        for path in names:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        fsync_folder(self.path)
        swap_in(self.path, self.final)
        for name in scratch:
            (self.final / name).unlink(missing_ok=True)
        return load_run(self.final)


def _end_replacement(partial: Path, final: Path) -> None:
    """Go on where a power cut ended the replacement of a run, between its two renames or after."""
    whole = (partial / MANIFEST).is_file()  # it is written last
    if os.path.lexists(replaced(final)) and whole and not os.path.lexists(final):
        partial.rename(final)
    end_swap(final)


@contextmanager
def open_run(
    name: str,
    *,
    root: Path | None = None,
    force: bool = False,
    resumable: bool = False,
    resume: bool = False,
    reads: Collection[str] = (),
) -> Iterator[RunFolder]:
    """Open the run `name` for writing and hold a lock on it; of several hosts, the first does.

    Whatever ends the block early leaves a finished run of that name untouched. Of a `resumable`
    run the partial folder stays, and with `resume` the next attempt finds it as it was.

    Args:
        name: the run's.
        root: where runs are; by default `runs_root()`.
        force: replace a finished run of that name, and start an interrupted one over.
        resumable: whether what an attempt left is of use.
        resume: continue it; with `force` as well where it is to replace a finished run.
        reads: SHA-256 of the files that the run is made from, such as its parents'.

    Raises:
        RunError: the run exists and `force` is not given or it holds what is read, another process
            is writing it, or an interrupted run of that name is there and neither `resume` nor
            `force` is given.
        BloodedgeError: the disk is full, the folder cannot be written, or the system refused
            something else inside the block.
    """
    with ExitStack() as stack:
        if hosts.is_first():
            opened = _opened(name, root or runs_root(), force, resumable, resume, reads)
            yield hosts.lead(lambda: stack.enter_context(opened))
        else:
            hosts.follow()
            yield stack.enter_context(_aside(name))


class Continuable(Protocol):
    """The settings of a stage whose interrupted runs can be continued."""

    @property
    def name(self) -> str:
        """The run's name."""

    @property
    def force(self) -> bool:
        """Whether a finished run of that name is replaced."""

    @property
    def resume(self) -> bool:
        """Whether an interrupted one is continued."""


def open_resumable(
    config: Continuable, *, reads: Collection[str]
) -> AbstractContextManager[RunFolder]:
    """Open the run of a stage as it is asked for; arguments and errors as for `open_run`."""
    return open_run(
        config.name, force=config.force, resumable=True, resume=config.resume, reads=reads
    )


@contextmanager
def _aside(name: str) -> Iterator[RunFolder]:
    """Give a host that writes nothing a folder that is thrown away, so that all do the same."""
    with tempfile.TemporaryDirectory(prefix="bloodedge-") as folder:
        partial = partial_folder(name, Path(folder))
        partial.mkdir()
        yield RunFolder(name, partial, Path(folder) / name)


@contextmanager
def _opened(
    name: str, root: Path, force: bool, resumable: bool, resume: bool, reads: Collection[str]
) -> Iterator[RunFolder]:
    final = root / check_name(name)
    partial = partial_folder(name, root)
    if not os.access(root, os.W_OK):
        # Nothing can be locked there, and this is what the user can mend.
        refuse_existing(final, force=force)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".{name}.lock", name):
            _end_replacement(partial, final)
            # Once more: until now another process could finish one, or leave one behind.
            refuse_existing(final, force=force)
            _refuse_source(final, reads)
            _refuse_fixed(final)
            if resumable and not (resume or force) and is_interrupted(name, root):
                raise RunError(
                    f"an interrupted run is in {partial}",
                    fix="add --resume to continue it, or --force to start over",
                )
            if partial.exists() and not resume:
                shutil.rmtree(partial)
            partial.mkdir(exist_ok=True)
            remove_partial_files(partial)
            try:
                yield RunFolder(name, partial, final)
            finally:
                if not resumable or not any(partial.glob("*")):
                    shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        advice = "free some disk space, or set BLOODEDGE_RUNS to a folder that can be written"
        raise BloodedgeError(
            f"the run {final} ended: {in_words(error)}",
            fix=advice if error.errno in _UNWRITABLE else "",
        ) from error


def refuse_existing(final: Path, *, force: bool = False) -> None:
    """Refuse to put a run where something is, be it a run or not.

    Raises:
        RunError: something is there, and `force` does not allow to replace it.
    """
    # A link to a disk that is not there is one, too.
    if os.path.lexists(final) and not force:
        raise RunError(f"the run {final} exists", fix="choose another --name, or add --force")


def _refuse_fixed(final: Path) -> None:
    """Refuse to replace what cannot be moved away, which would show only after the work."""
    try:
        if os.path.lexists(final):
            check_swap(final)
    except OSError as error:
        raise RunError(
            f"the run {final} cannot be replaced: {in_words(error)}", fix="choose another --name"
        ) from error


def _refuse_source(final: Path, reads: Collection[str]) -> None:
    """Refuse to put a run in the place of the model that it is made from."""
    try:
        files = load_run(final).manifest["files"] if reads and final.exists() else {}
    except RunError:
        return  # nothing can be read from a run whose manifest is damaged
    entries = {name: entry for name, entry in files.items() if isinstance(entry, dict)}
    digests = {entry.get("sha256"): name for name, entry in entries.items()}
    if held := digests.keys() & set(reads):
        raise RunError(
            f"the run {final} holds {digests[held.pop()]}, which is read here and would be gone",
            fix="choose another --name",
        )


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"another process is writing the run {name!r}", fix="wait for it, or stop it"
            ) from None
        if not path.exists() or os.fstat(lock.fileno()).st_ino != path.stat().st_ino:
            # Its holder deleted it between our opening and our locking it.
            raise RunError(f"the run {name!r} has just been finished", fix="start again")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Return the seconds so far, to a tenth."""
        return round(time.monotonic() - self._start, 1)


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that shape a result."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _command_line() -> str:
    """Return the command for a shell, with the variables that it took options from.

    The program's own folder says nothing about the run.
    """
    program = [Path(sys.argv[0]).name]
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None:
        # `python -m package` runs its `__main__`, which the command itself does not name.
        program = ["python", "-m", spec.name.removesuffix(".__main__")]
    taken = [
        f"{name}={shlex.quote(value)}"
        for name, (option, usual) in _VARIABLES.items()
        if (value := os.environ.get(name)) and value != usual and not _is_typed(option)
    ]
    return " ".join([*taken, shlex.join([*program, *sys.argv[1:]])])


def _is_typed(option: str) -> bool:
    return any(word == option or word.startswith(f"{option}=") for word in sys.argv[1:])
