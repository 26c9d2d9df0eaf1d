"""Where a run begins: anew, from a checkpoint of its own, or not at all, because it is done."""

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState

from rarft.checkpoint import remote
from rarft.checkpoint.local import (
    CHECKPOINT_JSON,
    CORRUPT,
    DONE,
    FINAL,
    GOOD,
    SUPERSEDED,
    check_same_run,
    checkpoints_of,
    exclude,
    good_step,
    is_complete,
    mark_good,
    newest_complete,
    step_of,
    verified,
)
from rarft.distributed.collectives import barrier, broadcast_from_main, is_local_main_process
from rarft.errors import InputError
from rarft.reporting.training_log import TRAINING_JSONL
from rarft.storage import s3
from rarft.storage.files import Location, exists, join_path, local_path, write_atomically
from rarft.storage.manifest import CorruptFolderError, parse_manifest, read_manifest

AUTO, NONE = "auto", "none"


def is_done(run: Location, whole: dict[str, Any]) -> bool:
    """Whether this very run has ended well before.

    Args:
        run: its folder, or where that lies in a store.
        whole: of `rarft.training.run_identity.run_fingerprint`.
    """
    try:
        if s3.is_object_uri(run):
            held = s3.sizes(run, remote.WHAT)
            final = f"{FINAL}/{CHECKPOINT_JSON}"
            return DONE in held and final in held and json.loads(s3.read(join_path(run, DONE), remote.WHAT)) == whole
        folder = Path(run)
        content = json.loads((folder / DONE).read_text(encoding="utf-8"))
        return content == whole and (folder / FINAL).is_dir()
    except (FileNotFoundError, ValueError):
        return False


def mark_done(run: Path, whole: dict[str, Any]) -> None:
    """Leave the mark that a run has ended well; the last thing that it writes."""
    with write_atomically(run / DONE) as temporary:
        temporary.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


class Resume:
    """Where a run goes on from.

    Args:
        asked: of `--resume_from_checkpoint`: auto, a path, a URI, none or nothing.
        run: folder of the run's checkpoints on this machine.
        store: where they lie in an object store, if they do.
        shared: whether all machines see `run`; where they do not, each fetches the checkpoint for itself.
        settings: this run's `rarft.training.run_identity.identity`.
    """

    def __init__(
        self, asked: str | None, run: Path, store: str | None, shared: bool, settings: dict[str, Any]
    ) -> None:
        self._asked = None if asked == NONE else asked
        self._run, self._store, self._shared, self._settings = run, store, shared, settings

    def checkpoint(self) -> Path | None:
        """The checkpoint to go on from, decided by the main process for all of them; None to begin anew.

        Raises:
            InputError: there is nothing to go on from, or it is another run's; on every process alike.
        """
        state = PartialState()
        chosen, source, refusal = None, None, None
        if state.is_main_process:
            try:
                chosen, source = self._choose()
                self._clear_done_marker(anew=chosen is None)
            except InputError as error:
                refusal = str(error)
        barrier()
        chosen, source, refusal = broadcast_from_main((chosen, source, refusal))
        if refusal:
            raise InputError(refusal)
        if not self._shared and is_local_main_process():
            for left in checkpoints_of(self._run):  # a part, or of an earlier start
                if str(left) != chosen or not state.is_main_process:
                    shutil.rmtree(left)
            if chosen and source and not state.is_main_process:
                remote.fetch(source, self._run)
        barrier()
        return Path(chosen) if chosen else None

    def _choose(self) -> tuple[str | None, str | None]:
        """The checkpoint on this machine, and where it was fetched from."""
        if self._asked is None:
            self._refuse_an_earlier_run()
            return None, None
        chosen, source = self._newest() if self._asked == AUTO else self._named(self._asked)
        if chosen is None:
            return None, None
        manifest = read_manifest(chosen, CHECKPOINT_JSON)
        check_same_run(source or chosen, manifest, self._settings)
        if self._asked != AUTO:
            if self._store:
                self._fetch_beside()
            self._set_later_ones_aside(chosen, manifest["step"])
        if good_step(self._run) > manifest["step"]:
            mark_good(self._run, manifest["step"])  # later ones will be made again
        print(f"training: going on from {source or chosen}", flush=True)
        return str(chosen), source

    def _newest(self) -> tuple[Path | None, str | None]:
        here = newest_complete(self._run) if self._shared else None
        if self._store is None:
            return here, None
        there = remote.fetch_newest(self._store, self._run, step_of(here) if here else -1)
        if there is None:
            return here, None
        self._fetch_beside()
        return there, join_path(self._store, there.name)

    def _fetch_beside(self) -> None:
        """Fetch the log, unless there is one here, and what the store says of its checkpoints."""
        assert self._store is not None
        held = s3.sizes(self._store, remote.WHAT)
        if TRAINING_JSONL in held and not (self._run / TRAINING_JSONL).exists():
            s3.download([(join_path(self._store, TRAINING_JSONL), self._run / TRAINING_JSONL)], remote.WHAT)
        (self._run / GOOD).unlink(missing_ok=True)  # of an earlier start on this machine
        if GOOD in held:
            s3.download([(join_path(self._store, GOOD), self._run / GOOD)], remote.WHAT)

    def _named(self, asked: str) -> tuple[Path, str | None]:
        try:
            if s3.is_object_uri(asked):
                return self._named_in_store(asked), asked
            path = local_path(asked, "--resume_from_checkpoint")
            verified(path)
        except CorruptFolderError as error:
            raise InputError(
                f"--resume_from_checkpoint {asked}: {error}; choose another, or auto for the newest whole one"
            ) from error
        return path, None

    def _named_in_store(self, asked: str) -> Path:
        """Fetch it, if it is this run's and takes no other's place; a refused run changes nothing."""
        content = remote.manifest_of(asked)
        check_same_run(asked, parse_manifest(content, CHECKPOINT_JSON), self._settings)
        place = self._run / asked.rstrip("/").rsplit("/", 1)[-1]
        if is_complete(place) and (place / CHECKPOINT_JSON).read_bytes() != content:
            raise InputError(
                f"--resume_from_checkpoint {asked}: {place} is another one; give another --exp_name or --scratch"
            )
        return remote.fetch(asked, self._run)

    def _set_later_ones_aside(self, chosen: Path, begins: int) -> None:
        """Those that the run made after the one that it goes on from are another future."""
        reason = f"the run was resumed from {chosen.name}"
        for newer in checkpoints_of(self._run):
            if step_of(newer) > begins:
                place = exclude(newer, SUPERSEDED if is_complete(newer) else CORRUPT, reason)
                print(f"training: {newer.name} renamed to {place.name}: {reason}", flush=True)
        for step in remote.steps_held(self._store) if self._store else []:
            if step > begins:
                remote.exclude(remote.checkpoint_uri(str(self._store), step), SUPERSEDED, reason)
                print(f"training: {remote.checkpoint_uri(str(self._store), step)} marked as superseded", flush=True)

    def _refuse_an_earlier_run(self) -> None:
        found = [path.name for path in checkpoints_of(self._run)]
        where: Location = self._run
        if not found and self._store:
            found, where = [f"checkpoint-{step}" for step in remote.steps_held(self._store)], self._store
        if found:
            raise InputError(
                f"{where} holds {found[0]} of an earlier run; --resume_from_checkpoint auto goes on from there, "
                "another --exp_name begins anew"
            )

    def _clear_done_marker(self, anew: bool) -> None:
        """Remove the mark of another run's end; a refused run changes nothing."""
        where: Location = self._store or self._run
        if anew and (s3.is_object_uri(where) or self._run.is_dir()) and exists(where, DONE):
            print(
                f"training: begins anew; {where} holds a run that is done, of which {FINAL} will be replaced; "
                "another --exp_name keeps both",
                flush=True,
            )
        for name in (DONE, GOOD) if anew else (DONE,):
            (self._run / name).unlink(missing_ok=True)
            if self._store:
                s3.delete(join_path(self._store, name), remote.WHAT)
