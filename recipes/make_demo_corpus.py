"""Make the demo corpus: speech, sounds and music synthesised on this machine, with true captions and questions.

    python recipes/make_demo_corpus.py --output runs/demo/corpus --train_clips 3600 --test_clips 330 --seed 0 --workers 2

It is written in the on-disk formats of MusicQA, ClothoAQA, COMPA-R, LibriTTS and AudioCaps (training) and MMAR (test), so that
everything after it runs as on the real data. Nothing is downloaded. A finished corpus with the same settings is reused.
"""

from dataclasses import dataclass, field
from pathlib import Path

from alm.arguments import parse_arguments, run_main


@dataclass
class Arguments:
    output: str = field(default="runs/demo/corpus", metadata={"help": "folder to make; it appears when it is complete"})
    train_clips: int = field(default=3_600, metadata={"help": "number of training clips of 1.6 to 3.0 s"})
    test_clips: int = field(default=330, metadata={"help": "number of test clips; each is asked 2 to 4 questions"})
    seed: int = field(default=0, metadata={"help": "decides every byte, together with the numbers of clips"})
    workers: int = field(default=2, metadata={"help": "processes; the corpus does not depend on their number"})
    overwrite: bool = field(default=False, metadata={"help": "replace a demo corpus of other settings"})
    dry_run: bool = field(default=False, metadata={"help": "print the plan and exit"})


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(Arguments, argv, description=__doc__)
    from alm.data.demo.corpus import Settings, build, make_plan, summary

    settings = Settings(args.train_clips, args.test_clips, args.seed)
    if args.dry_run:
        plan = summary(make_plan(settings))
        for split in ("train", "test"):
            clips, questions = plan["clips"][split], plan["questions"][split]
            print(f"{split}: {sum(clips.values())} clips, {sum(questions.values())} questions")
            print("  clips by form:     " + ", ".join(f"{name} {count}" for name, count in clips.items()))
            print("  questions by kind: " + ", ".join(f"{name} {count}" for name, count in questions.items()))
        print(f"to be written to {args.output} by {args.workers} processes")
        return
    built = build(Path(args.output), settings, args.workers, args.overwrite)
    seconds = {split: sum(domains.values()) for split, domains in built.manifest["seconds"].items()}
    print(
        f"{'already there' if built.reused else 'made'}: {args.output}, {args.train_clips} training clips "
        f"({seconds['train'] / 60:.1f} min), {args.test_clips} test clips ({seconds['test'] / 60:.1f} min), "
        f"{sum(built.manifest['questions']['train'].values())} + {built.manifest['rows']['mmar']} questions"
    )


if __name__ == "__main__":
    run_main(main)
