"""Publish a model, a LoRA adapter or a codec: a complete folder for the Hub with its model card, and the upload.

    python recipes/publish.py --model runs/demo/model --output runs/demo/hub --results runs/demo/mmar.json --dry_run
    python recipes/publish.py --model runs/demo/model --output runs/demo/hub --results runs/demo/mmar.json runs/demo/reconstruction.json \\
        --repo OWNER/NAME --license apache-2.0 --private --push --verify
    python recipes/publish.py --codec runs/demo/codec --output runs/demo/hub_codec --results runs/demo/reconstruction.json

The doctor examines the folder first; a result measured on other weights is refused. Results on a model load it, to compare its weights.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from alm.arguments import parse_arguments, run_main

if TYPE_CHECKING:
    from alm.publishing.publication import Publication


@dataclass
class PublishArguments:
    output: str = field(metadata={"help": "folder to write: what is uploaded is exactly this"})
    model: str | None = field(default=None, metadata={"help": "checkpoint or LoRA adapter of a training recipe"})
    codec: str | None = field(default=None, metadata={"help": "or a codec alone: folder of recipes/train_codec.py"})
    repo: str | None = field(default=None, metadata={"help": "Hub id OWNER/NAME; the card's examples load it"})
    results: list[str] = field(default_factory=list, metadata={"help": "result files of eval/*.py for the card"})
    codec_id: str | None = field(
        default=None, metadata={"help": "with --model: Hub id of its codec, named instead of a copy in codec/"}
    )
    base_model: str | None = field(
        default=None, metadata={"help": "Hub id of the model it was trained from; an adapter's grown base"}
    )
    datasets: list[str] = field(default_factory=list, metadata={"help": "Hub ids of the training data"})
    language: list[str] = field(default_factory=list, metadata={"help": "languages of the training data, as en"})
    license: str | None = field(default=None, metadata={"help": "licence of these weights, as apache-2.0"})
    push: bool = field(default=False, metadata={"help": "upload to --repo, made where it is not there"})
    private: bool = field(default=False, metadata={"help": "a new repository is private"})
    revision: str | None = field(default=None, metadata={"help": "branch to upload to"})
    message: str = field(default="Publish with entangle-alm", metadata={"help": "commit message"})
    verify: bool = field(default=False, metadata={"help": "after the upload read the configuration back and compare"})
    overwrite_output: bool = field(default=False, metadata={"help": "replace OUTPUT where it exists"})
    dry_run: bool = field(default=False, metadata={"help": "print files, metadata and target, write nothing, and exit"})

    def __post_init__(self) -> None:
        if (self.model is None) == (self.codec is None):
            raise ValueError("give either --model or --codec")
        if self.codec is not None and self.codec_id is not None:
            raise ValueError("--codec_id goes with --model: it names the model's codec")
        if self.push and self.repo is None:
            raise ValueError("--push needs --repo OWNER/NAME")
        if not self.push and (self.private or self.verify or self.revision):
            raise ValueError("--private, --revision and --verify go with --push")


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(PublishArguments, argv, description=__doc__)
    from alm.checkpoint_files import local_folder
    from alm.data.example import DataError
    from alm.publishing import hub
    from alm.publishing.card import About
    from alm.publishing.publication import of_codec, of_model, save

    output = Path(args.output)
    if output.exists() and not args.overwrite_output and not args.dry_run:
        raise DataError(f"{output} exists; give another --output, or --overwrite_output to replace it")
    source = Path(args.codec or str(args.model))
    if output.resolve() in (source.resolve(), *source.resolve().parents):
        raise DataError(f"--output {output} is, or holds, what is to be published; give a folder of its own")
    if args.push and not args.dry_run:
        hub.require_login(str(args.repo))
    about = About(args.repo, args.license, args.base_model, args.datasets, args.language)
    if args.codec is not None:
        publication = of_codec(source, about, args.results)
    else:
        folder = local_folder(str(args.model))
        publication = of_model(folder, about, args.results, args.codec_id, must_reach=args.push and not args.dry_run)
    print(plan(args, publication))
    if args.dry_run:
        return

    save(publication, output)
    print(f"saved to {output}")
    if args.push:
        commit = hub.push(output, str(args.repo), args.private, args.revision, args.message)
        print(f"pushed to {args.repo} at {commit}")
        if args.verify:
            hub.verify(output, str(args.repo), commit, publication.config)
            print(f"{publication.config} read back: the same")


def plan(args: PublishArguments, publication: "Publication") -> str:
    """What is published, in words: files with sizes, the card's metadata, where it goes."""
    from alm.publishing.files import listing

    visible = "private if it is new" if args.private else "public if it is new"
    target = f"{args.repo}, branch {args.revision or 'main'}, {visible}" if args.push else "nowhere (no --push)"
    indented = "\n".join(f"    {line}" for line in publication.metadata.to_yaml().splitlines())
    return "\n".join(
        [
            f"folder     {args.output}",
            listing(publication.files),
            *(f"note       {note}" for note in publication.notes),
            f"card's metadata\n{indented}",
            f"uploaded   {target}",
        ]
    )


if __name__ == "__main__":
    run_main(main)
