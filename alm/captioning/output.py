"""What a captioning run leaves: the table that codec training reads, the list of failures, the log and the manifest."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alm.captioning.inputs import SourceClip
from alm.captioning.structure import with_transcript
from alm.data.example import DataError
from alm.scoring.item_log import ItemLog, Row, read_rows
from alm.scoring.manifest import resume_key
from alm.scoring.results import write_text_atomically


class Output:
    """The files of one run: `NAME.csv` (`file_name,caption`) and beside it `.items.jsonl`, `.failed.csv`, `.manifest.json`.

    Raises `DataError` for a name that does not end with .csv: nothing else would be read as a table.
    """

    def __init__(self, table: Path) -> None:
        if table.suffix != ".csv":
            raise DataError(f"--output {table}: a name that ends with .csv is needed")
        self.table = table
        self.log, self.failed, self.manifest = (
            table.with_name(table.stem + end) for end in (".items.jsonl", ".failed.csv", ".manifest.json")
        )

    def logged(self) -> list[Row]:
        """Rows of the log as it is, whatever its settings."""
        return read_rows(self.log) if self.log.exists() else []

    def open_log(self, settings: dict[str, Any], is_done: Callable[[Row], bool], overwrite: bool = False) -> ItemLog:
        """The log, to go on with; `settings` is all that decides a caption.

        Raises `DataError` where it was written under other settings, unless `overwrite` (it is then kept as `.old`): captions that
        were paid for must not go by a slip of a flag.
        """
        key = resume_key(**settings)
        if any(row.get("key") != key for row in self.logged()) and not overwrite:
            raise DataError(
                f"{self.log} was written under other settings ({self._differences(settings)}); give another --output, or "
                "--overwrite to begin afresh (the old log is kept as .old)"
            )
        log = ItemLog(self.log, key, resume=True, is_done=is_done)
        self._write_manifest({"settings": settings, "complete": False})
        return log

    def write(self, clips: Sequence[SourceClip], rows: dict[str, Row], manifest: dict[str, Any]) -> dict[str, int]:
        """Write table, failures and manifest, each atomically and in the order of `clips`; return the counts of the manifest."""
        done = [(clip, rows[clip.name]) for clip in clips if rows[clip.name]["status"] == "done"]
        failed = [(clip.name, rows[clip.name]["reason"]) for clip in clips if rows[clip.name]["status"] == "failed"]
        write_text_atomically(
            self.table, _csv(("file_name", "caption"), [(clip.name, _caption(clip, row)) for clip, row in done])
        )
        if failed:
            write_text_atomically(self.failed, _csv(("file_name", "reason"), failed))
        else:
            self.failed.unlink(missing_ok=True)
        all_rows = [rows[clip.name] for clip in clips]
        counts = {
            "clips": len(clips),
            "captioned": len(done),
            "failed": len(failed),
            "with_transcript": sum(clip.transcript is not None for clip, _ in done),
            "cut": sum(bool(row.get("cut")) for row in all_rows),
            **{
                f"content_{name}": sum(row["content"] == name for _, row in done)
                for name in ("speech", "music", "sound")
            },
            **{name: sum(row[name] for row in all_rows) for name in ("requests", "prompt_tokens", "answer_tokens")},
        }
        seconds = round(sum(row.get("seconds", 0.0) for row in all_rows), 3)
        served = sorted({row["served"] for row in all_rows if row.get("served")})
        self._write_manifest({**manifest, "served": served, "counts": counts, "seconds": seconds, "complete": True})
        return counts

    def _write_manifest(self, manifest: dict[str, Any]) -> None:
        write_text_atomically(self.manifest, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")

    def _differences(self, settings: dict[str, Any]) -> str:
        try:
            former = json.loads(self.manifest.read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, KeyError, TypeError):
            return f"there is no {self.manifest.name} to say which"
        names = sorted({*former, *settings})
        told = [
            f"{n} {former.get(n)!r} then, {settings.get(n)!r} now" for n in names if former.get(n) != settings.get(n)
        ]
        return "; ".join(told) or "by more than one run"


def _caption(clip: SourceClip, row: Row) -> str:
    caption: str = row["caption"]
    return with_transcript(caption, clip.transcript) if clip.transcript else caption


def _csv(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    return file.getvalue()
