"""The bridge between the two engines: Snakemake executes and knows the jobs, DVC stores, shares and proves by content.

python workflow/engines.py generate   write dvc.yaml: a stage for each job, and for each target that gathers jobs
python workflow/engines.py check      exit with 1 and one sentence if dvc.yaml is not what `generate` would write
python workflow/engines.py adopt      generate; let Snakemake adopt what DVC proves current, as after `dvc pull`
python workflow/engines.py sync       generate; record in dvc.lock what Snakemake has finished and holds current; adopt

The Snakefile calls `before_run` and `after_run`, which do this where there is something to do. Without DVC, or without
a .dvc folder, they do nothing; nor where the environment variable DDGM_BRIDGE is `off`.
"""

import asyncio
import fnmatch
import functools
import hashlib
import importlib.util
import json
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from snakemake.exceptions import RuleException, WorkflowError
from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord
from snakemake.persistence.file import FilePersistence

from ddgm.errors import UserError
from ddgm.lock import lock
from ddgm.stages import recorded_stages, stages_of
from ddgm.whole_file import whole_file

PIPELINE, LOCK, PARAMETERS = Path("dvc.yaml"), Path("dvc.lock"), Path("params.yaml")
HEADER = "# Written by `python workflow/engines.py generate` from the rules: edit them, not this file.\n"
# What dvc.yaml follows from; and the digest of all that, with dvc.yaml itself, when the two were last seen in step.
SOURCES = (
    "Snakefile", "params.yaml", "workflow/**/*.py", "workflow/**/*.smk", "workflow/report/*.rst",
    "workflow/report/*.jinja", "src/**/*.py", "src/**/*.csv",
)  # fmt: skip
IN_STEP = Path(".snakemake/dvc.yaml.in_step")
# One bridge at a time: several Snakemakes may work here side by side, and end together.
TURN = Path(".snakemake/bridge.lock")
PROFILE = Path("profiles/default/config.yaml")
# What is small enough for git; of it what `dvc metrics` can read; and the tables for `dvc plots`, with what it draws.
TABLES = ("results/*/metrics.csv", "results/*/metrics/*.csv", "results/*/data/*.csv")
METRICS = ("results/*/metrics.json",)
HISTORIES = "results/*/models/*/history.csv"
CURVES: dict[str, list[str]] = {"energies": ["energy_data", "energy_samples"], "entropy": ["entropy"]}
# Stands for the parameters of a file that dvc.lock contradicts: other parameters make Snakemake repeat the job.
UNPROVED = "unknown: dvc.lock does not vouch for this file"


def before_run(is_main_process: bool) -> None:
    """At the start of a Snakemake run, also of a dry one: bring dvc.yaml into step and adopt, if there is need."""
    if not (is_main_process and bridged()):
        return
    try:
        foreign, unrecorded = disagreements()
    except UserError as damage:
        print(f"Nothing is recorded for DVC: {damage}", file=sys.stderr)
        return
    if foreign or not in_step():
        apart("adopt")
    if unrecorded:
        advice = "write 'python workflow/engines.py sync', or run a job"
        print(f"Finished results that dvc.lock does not know: {len(unrecorded)} ({advice})", file=sys.stderr)


def after_run() -> None:
    """At the end of a Snakemake run that had jobs, also of a failed one: record what is finished."""
    if bridged():
        with suppress(UserError):
            recorded_stages(LOCK)
            apart("sync")


def bridged() -> bool:
    """Whether both engines are here. Not in a Snakemake that DVC itself has started for one stage: DVC records it."""
    switch = os.environ.get("DDGM_BRIDGE") or "on"
    if switch not in ("on", "off"):
        raise SystemExit(f"DDGM_BRIDGE is '{switch}': write on or off, or leave it unset")
    off = switch == "off" or "DVC_STAGE" in os.environ
    return not off and Path(".dvc").is_dir() and Path(".git").exists() and bool(importlib.util.find_spec("dvc"))


def apart(command: str) -> None:
    """Run a command of this file in a process of its own: each engine wants its own logger and event loop."""
    environment = os.environ | {"DDGM_BRIDGE": "off"}
    done = subprocess.run([sys.executable, __file__, command], env=environment, capture_output=True, text=True)
    print(done.stdout, end="", file=sys.stderr, flush=True)
    if done.returncode:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1].split(". ")[0]
        print(f"The bridge to DVC stopped ({reason}): try 'python workflow/engines.py {command}'", file=sys.stderr)


# Snakemake's side: its jobs, and its record of each file that it made.


@contextmanager
def workflow() -> Iterator[Any]:
    """Snakemake's workflow with the jobs of every target (`all`, `toy`, `fig1`...), each judged as in a dry run."""
    from snakemake import api
    from snakemake.settings import types as settings

    profile = yaml.safe_load(PROFILE.read_text())
    quiet = settings.OutputSettings(quiet={settings.Quietness.ALL}, enable_file_logging=False)
    with api.SnakemakeApi(quiet) as snakemake:
        parsed = snakemake.workflow(settings.ResourceSettings(cores=1), snakefile=Path("Snakefile"))
        flow = parsed._workflow
        targets = frozenset(rule.name for rule in flow.rules if rule.norun)
        size = profile["max-checksum-file-size"]
        dag = parsed.dag(settings.DAGSettings(targets=targets, max_checksum_file_size=size))
        dag.execute_workflow("dryrun", execution_settings=settings.ExecutionSettings(lock=False))
        yield flow


def jobs(flow: Any) -> list[Any]:
    """The jobs, each after those it needs."""
    return [job for level in flow.dag.toposorted() for job in sorted(level, key=stage_name)]


def modified(path: str) -> float:
    """The time of a file, or of the link that stands for it."""
    return os.lstat(path).st_mtime


def made_here(path: str, records: FilePersistence) -> bool:
    """Whether Snakemake's record is about this very file, not about one that another has replaced."""
    record = records._read_record(path)
    return record is not None and record.endtime == modified(path)


def strangers(paths: Iterable[str]) -> list[str]:
    """The files that came from elsewhere: from `dvc pull`, `dvc checkout`, or an editor."""
    there = [path for path in paths if os.path.exists(path)]
    records = FilePersistence()
    # What a job is writing now, or has left half-written, carries a mark: Snakemake knows about it.
    half_made = records._filter_incomplete_keys(there)
    return [path for path in there if path not in half_made and not made_here(path, records)]


def edited_meanwhile(job: Any, records: FilePersistence) -> list[str]:
    """The files that were edited while a job may have read them. Later edits are Snakemake's to notice."""
    begun = min((records._read_record(path).starttime for path in job.output), default=0)
    ended = max(map(modified, job.output), default=0)
    return [path for path in job.input if os.path.exists(path) and begun < modified(path) <= ended]


def disown(job: Any, records: FilePersistence) -> None:
    """Make Snakemake repeat a job, without removing its files."""
    record = MetadataRecord(rule=job.rule.name, params=[UNPROVED], record_format_version=RECORD_FORMAT_VERSION)
    for path in filter(os.path.exists, job.output):
        records._write_record(str(path), record)


# DVC's side: dvc.yaml, and what dvc.lock says.


def stage_name(job: Any) -> str:
    """rule-wildcard-wildcard, in the letters that DVC allows."""
    words = "-".join([job.rule.name, *job.wildcards_dict.values()])
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in words)


def stage(job: Any) -> dict[str, Any]:
    """The stage of dvc.yaml for a job."""
    inputs = list(dict.fromkeys(map(str, job.input)))
    if not job.output:
        return {"desc": job.rule.docstring.strip(), "cmd": "true", "deps": inputs}
    run = f"snakemake --quiet host progress --cores all --allowed-rules {job.rule.name}"
    # A rule is no file of its own: DVC sees that it was edited by its command.
    version = hashlib.sha256(job.rule.shellcmd.encode()).hexdigest()[:8]
    outputs: dict[str, list[Any]] = {"outs": [], "metrics": []}
    for path in map(str, job.output):
        kind = "metrics" if matches(path, METRICS) else "outs"
        outputs[kind].append({path: {"cache": False}} if matches(path, METRICS + TABLES) else path)
    entry = {
        "desc": str(job.message),
        "cmd": f"{run} -- {shlex.quote(job.output[0])}  # rule {version}",
        "deps": inputs,
        "params": list(json.loads(job.params.cfg)),
    }
    return {key: value for key, value in (entry | outputs).items() if value}


def matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)


def curves(job: Any) -> list[dict[str, Any]]:
    """What `dvc plots` draws of a job: the curves of a training, by .dvc/plots/curves.json, which keeps seeds apart."""
    run = "-".join(job.wildcards_dict.values())
    return [
        {
            f"{run}-{name}": {
                "x": "step",
                "y": {path: [*columns]},
                "title": f"{run}: {name}",
                "template": "curves",
                "y_label": name,
            }
        }
        for path in map(str, job.output)
        if fnmatch.fnmatch(path, HISTORIES)
        for name, columns in CURVES.items()
    ]


def pipeline(flow: Any) -> str:
    """The text of dvc.yaml."""
    order = {rule.name: number for number, rule in enumerate(flow.rules)}
    ordered = sorted(jobs(flow), key=lambda job: (order[job.rule.name], stage_name(job)))
    names = [stage_name(job) for job in ordered]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SystemExit(f"two jobs would be the stage {twice}: let their wildcards differ in letters or digits")
    stages = dict(zip(names, map(stage, ordered), strict=True))
    described = {"stages": stages, "plots": [plot for job in ordered for plot in curves(job)]}
    return HEADER + yaml.dump(described, sort_keys=False, width=110, default_flow_style=None)


def digest() -> str:
    """One value for dvc.yaml and all that it follows from."""
    files = sorted({path for pattern in SOURCES for path in Path().glob(pattern)} | {PIPELINE})
    contents = [f"{path}\0{path.read_text()}" for path in files if path.exists()]
    return hashlib.sha256("\0".join(contents).encode()).hexdigest()


def in_step() -> bool:
    """Whether neither dvc.yaml nor what it follows from has changed since it was last compared."""
    return IN_STEP.exists() and IN_STEP.read_text() == digest()


def write_pipeline(flow: Any) -> None:
    """Write dvc.yaml if it is not what follows from the jobs."""
    text = pipeline(flow)
    if not PIPELINE.exists() or PIPELINE.read_text() != text:
        with whole_file(PIPELINE) as path:
            path.write_text(text)
        print("dvc.yaml: written again, for the jobs have changed")
    IN_STEP.write_text(digest())


def disagreements() -> tuple[list[str], list[str]]:
    """The stages with files that Snakemake did not make, and those that it made and dvc.lock has never heard of.

    Asked at each run, so without DVC, which takes a second to import."""
    locked = recorded_stages(LOCK)
    try:
        stages = stages_of(PIPELINE)
    except yaml.YAMLError:
        return [str(PIPELINE)], []  # it is written again
    foreign, unrecorded = [], []
    for name, entry in stages.items():
        outs = [out for kind in ("outs", "metrics") for out in entry.get(kind) or ()]
        paths = [out if isinstance(out, str) else next(iter(out)) for out in outs]
        if name in locked and strangers(paths):
            foreign.append(name)
        elif name not in locked and paths and all(map(os.path.exists, paths)) and not strangers(paths):
            unrecorded.append(name)
    return foreign, unrecorded


class Proof:
    """What dvc.lock, the parameters and the files together say of each stage."""

    def __init__(self, repo: Any) -> None:
        from dvc.stage import PipelineStage
        from dvc.utils.serialize import load_path

        # A user's own 'dvc add' is a stage too, and has no name.
        self.stages = {stage.name: stage for stage in repo.index.stages if isinstance(stage, PipelineStage)}
        self.makers = {out.fs_path: (stage, out) for stage in self.stages.values() for out in stage.outs}
        self.parameters = load_path(str(PARAMETERS), repo.fs)
        self.hashes: dict[str, Any] = {}
        self.holds = functools.cache(self._holds)

    def _holds(self, name: str) -> bool:
        """Whether the command, the parameters and all that a stage reads are as in dvc.lock, and what there is of its
        outputs too. A missing dependency counts as it comes out of the stage that makes it, if that one holds."""
        stage = self.stages[name]
        return (
            not stage.cmd_changed
            and all(out.hash_info and (not out.exists or self.same(out)) for out in stage.outs)
            and all(self.same_values(dep) if dep in stage.params else self.same(dep) for dep in stage.deps)
        )

    def same(self, file: Any) -> bool:
        """Whether a file has, or would again get, the content that dvc.lock says."""
        if file.exists:
            if file.fs_path not in self.hashes:
                self.hashes[file.fs_path] = file.get_hash()
            return self.hashes[file.fs_path] == file.hash_info
        maker, out = self.makers.get(file.fs_path, (None, None))
        return maker is not None and out.hash_info == file.hash_info and self.holds(maker.name)

    def same_values(self, parameters: Any) -> bool:
        """Whether params.yaml has the values that dvc.lock says."""
        locked = parameters.hash_info.value or {}
        value = functools.partial(functools.reduce, lambda level, part: level.get(part, {}))
        return locked == {key: value(key.split("."), self.parameters) for key in parameters.params}

    def stored(self, name: str) -> bool:
        """Whether a stage holds and its outputs are in DVC's cache: nothing is left to record."""
        return self.holds(name) and not any(out.use_cache and out.changed_cache() for out in self.stages[name].outs)


# What passes between them.


def adopt(flow: Any, repo: Any) -> None:
    """Let Snakemake take over the jobs that DVC proves current, and repeat those with files from elsewhere that it does
    not prove. Where dvc.lock does not know a job at all, Snakemake's own judgement stands."""
    proof, adopted, disowned, due = Proof(repo), [], [], set()
    flow.iocache.deactivate()
    for job in filter(lambda job: job.output, jobs(flow)):
        name, foreign = stage_name(job), strangers(job.output)
        needed = {stage_name(other) for other in flow.dag.job_dependencies(job)}
        wanted = flow.dag.needrun(job)
        complete = all(map(os.path.exists, job.output))
        if complete and (foreign or (wanted and not needed & due)) and proof.holds(name):
            settle(job, proof.stages[name], flow.persistence)
            adopted.append(name)
        elif foreign and any(out.hash_info for out in proof.stages[name].outs):
            disown(job, flow.persistence)
            disowned.append(name)
        if (wanted and name not in adopted) or name in disowned:
            due.add(name)
    if adopted:
        print(f"Snakemake: results adopted, for dvc.lock proves them current: {len(adopted)}")
    if disowned:
        print(f"Snakemake: will make again what dvc.lock does not vouch for: {', '.join(disowned)}")


def settle(job: Any, stage: Any, records: FilePersistence) -> None:
    """Give Snakemake the record that it would have if it had just run the job."""
    inputs = map(modified, filter(os.path.exists, job.input))
    if max(inputs, default=0) > min(map(modified, job.output)):
        for out in stage.outs:
            os.utime(out.fs_path, follow_symlinks=False)
            stage.repo.state.save(out.fs_path, out.fs, out.hash_info)  # spares DVC a second reading
    for path in job.output:
        records.cleanup_metadata(path)
    asyncio.run(records.finished(job))


def record(flow: Any, repo: Any) -> None:
    """Write into dvc.lock, and DVC's cache, the finished and current jobs that are not there yet: no others."""
    from dvc.repo import lock_repo

    proof, current, stages = Proof(repo), set(), []
    for job in jobs(flow):
        name, records = stage_name(job), flow.persistence
        needed = {stage_name(other) for other in flow.dag.job_dependencies(job)}
        finished = all(os.path.exists(path) and made_here(path, records) for path in job.output)
        if flow.dag.needrun(job) or not finished or not (job.output or needed <= current):
            continue
        if (edited := edited_meanwhile(job, records)) and not proof.holds(name):
            disown(job, records)
            print(
                f"{name} is not recorded and will be made again, for {edited[0]} was edited while it ran"
                f" (if the edit changes nothing, write 'dvc commit -f {name}')"
            )
            continue
        current.add(name)
        if not proof.stored(name) and all(map(os.path.exists, job.input)):
            stages.append(proof.stages[name])
    if stages:
        print(f"dvc.lock: recording {len(stages)} results", file=sys.stderr)
        with lock_repo(repo), repo.scm_context(quiet=True):
            for stage in stages:
                stage.save()
                stage.commit(relink="symlink" in repo.cache.local.cache_types)
            stages[0].dvcfile.dump_stages(stages, update_pipeline=False)
        print(f"dvc.lock: results recorded: {len(stages)}")


def refusals() -> tuple[type[Exception], ...]:
    """What either engine, or the project, raises to say in a sentence what is wrong."""
    # Without DVC, or where it is not there yet, it has raised nothing.
    dvc = sys.modules.get("dvc.exceptions")
    return (UserError, WorkflowError, RuleException, *([dvc.DvcException] if dvc else []))


def main(command: str) -> None:
    """One of the four commands."""
    os.chdir(Path(__file__).parents[1])
    os.environ["DDGM_BRIDGE"] = "off"  # the Snakefile is read here too, and must not call the bridge again
    if command == "check":
        with workflow() as flow:
            if not PIPELINE.exists() or PIPELINE.read_text() != pipeline(flow):
                raise SystemExit("dvc.yaml is not what the rules give: write 'python workflow/engines.py generate'")
        return
    TURN.parent.mkdir(exist_ok=True)
    with TURN.open("w") as turn:
        if not lock(turn.fileno(), TURN.parent):
            print("another bridge is at work here: waiting for it", file=sys.stderr, flush=True)
            lock(turn.fileno(), TURN.parent, wait=True)
        with workflow() as flow:
            pass_between(command, flow)


def pass_between(command: str, flow: Any) -> None:
    """Write dvc.yaml; and what the command asks for between the two engines."""
    write_pipeline(flow)
    if command == "generate":
        return
    recorded_stages(LOCK)
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)
    with Repo() as repo:
        if command == "sync":
            record(flow, repo)
        adopt(flow, repo)


if __name__ == "__main__":
    commands = ("generate", "check", "adopt", "sync")
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        raise SystemExit(f"write 'python workflow/engines.py COMMAND' with one of {', '.join(commands)}")
    try:
        main(sys.argv[1])
    except refusals() as error:
        raise SystemExit(" ".join(str(error).split()) or type(error).__name__) from None
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "dvc":
            raise
        raise SystemExit("DVC is not installed: 'make setup' installs both engines") from None
