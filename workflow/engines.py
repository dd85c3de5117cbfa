"""The bridge between the two engines: Snakemake executes and knows the jobs, DVC stores, shares and proves by content.

python workflow/engines.py generate   write dvc.yaml: one stage for each job of the targets `all` and `toy`
python workflow/engines.py check      exit with 1 and one sentence if dvc.yaml is not what `generate` would write
python workflow/engines.py adopt      let Snakemake take over the results that DVC proves current, as after `dvc pull`
python workflow/engines.py record     write into dvc.lock what Snakemake has finished and holds for current

The Snakefile calls `before_run` and `after_run`, which do this where there is something to do. Without DVC, or without
a .dvc folder, they do nothing; nor where the environment variable DDGM_BRIDGE is `off`.
"""

import asyncio
import fnmatch
import functools
import hashlib
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord
from snakemake.persistence.file import FilePersistence

TARGETS = ("all", "toy")
PIPELINE, LOCK = Path("dvc.yaml"), Path("dvc.lock")
HEADER = (
    "# Written by `python workflow/engines.py generate` from the Snakefile's jobs: edit the rules, not this file.\n"
)
# What dvc.yaml follows from; and the digest of all that, with dvc.yaml itself, when the two were last seen in step.
SOURCES = ("Snakefile", "params.yaml", "workflow/**/*.py", "workflow/**/*.smk", "src/**/*.py", "src/**/*.csv")
IN_STEP = Path(".snakemake/dvc.yaml.in_step")
PROFILE = Path("profiles/default/config.yaml")
# Tables small enough for git, and tables for `dvc plots`.
METRICS = ("results/*/metrics.csv", "results/*/metrics/*.csv")
PLOTS = ("results/*/models/*/history.csv",)
# Stands for the parameters of a file from elsewhere that dvc.lock contradicts: Snakemake then makes it again.
UNPROVED = "unknown: dvc.lock does not vouch for this file"


def before_run(is_main_process: bool) -> None:
    """At the start of a Snakemake run: bring dvc.yaml into step and adopt results, if there is anything to do."""
    if is_main_process and bridged() and (not in_step() or strangers(locked_files())):
        call("adopt")


def after_run() -> None:
    """At the end of a Snakemake run, also a failed one: record what is finished."""
    if bridged():
        call("record")


def bridged() -> bool:
    """Whether both engines are here. Not in a Snakemake that DVC itself has started for one stage: it records alone."""
    off = os.environ.get("DDGM_BRIDGE") == "off" or "DVC_STAGE" in os.environ
    return not off and Path(".dvc").is_dir() and Path(".git").exists() and bool(importlib.util.find_spec("dvc"))


def call(command: str) -> None:
    """Run a command of this file in a process of its own: both engines have loggers and event loops to themselves."""
    done = subprocess.run(
        [sys.executable, __file__, command],
        env=os.environ | {"DDGM_BRIDGE": "off"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    print(done.stdout, end="", file=sys.stderr, flush=True)
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        print(f"DVC was left as it was ({reason}): see 'python workflow/engines.py {command}'", file=sys.stderr)


# Snakemake's side: its jobs, and its record of each file that it made.


@contextmanager
def workflow() -> Iterator[Any]:
    """Snakemake's workflow with the jobs of all targets, each judged as in a dry run."""
    from snakemake import api
    from snakemake.settings import types as settings

    profile = yaml.safe_load(PROFILE.read_text())
    quiet = settings.OutputSettings(quiet={settings.Quietness.ALL}, enable_file_logging=False)
    with api.SnakemakeApi(quiet) as snakemake:
        parsed = snakemake.workflow(settings.ResourceSettings(cores=1), snakefile=Path("Snakefile"))
        dag = parsed.dag(
            settings.DAGSettings(targets=frozenset(TARGETS), max_checksum_file_size=profile["max-checksum-file-size"])
        )
        dag.execute_workflow(executor="dryrun", execution_settings=settings.ExecutionSettings(lock=False))
        yield parsed._workflow


def jobs(flow: Any) -> list[Any]:
    """The jobs that make files, each after those it needs."""
    return [job for level in flow.dag.toposorted() for job in sorted(level, key=stage_name) if job.output]


def modified(path: str) -> float:
    return os.lstat(path).st_mtime


def made_here(path: str, records: FilePersistence) -> bool:
    """Whether Snakemake's record is about this very file, not about another that has taken its place."""
    record = records._read_record(path)
    return record is not None and record.endtime == modified(path)


def strangers(paths: Iterable[str]) -> list[str]:
    """The files that came from elsewhere: from `dvc pull`, `dvc checkout`, or an editor."""
    there = [path for path in paths if os.path.exists(path)]
    if not there:
        return []
    records = FilePersistence()
    # What a job is writing now, or left half-written, has a mark: Snakemake knows about it.
    half_made = records._filter_incomplete_keys(there)
    return [path for path in there if path not in half_made and not made_here(path, records)]


# DVC's side: dvc.yaml, and what dvc.lock says.


def stage_name(job: Any) -> str:
    """rule-wildcard-wildcard, in the letters that DVC allows."""
    words = [job.rule.name, *job.wildcards_dict.values()]
    return "-".join("".join(letter if letter.isalnum() or letter == "_" else "_" for letter in word) for word in words)


def stage(job: Any) -> dict[str, Any]:
    """A stage of dvc.yaml for a job of Snakemake."""
    # DVC cannot see an edited rule but by its command.
    rule = hashlib.sha256(job.rule.shellcmd.encode()).hexdigest()[:8]
    target = shlex.quote(str(job.output[0]))
    entry: dict[str, Any] = {
        "desc": str(job.message),
        "cmd": f"snakemake --quiet host progress --cores all --allowed-rules {job.rule.name} -- {target}  # rule {rule}",
        "deps": list(dict.fromkeys(map(str, job.input))),
        "params": list(json.loads(job.params.cfg)),
    }
    for path in map(str, job.output):
        if any(fnmatch.fnmatch(path, pattern) for pattern in METRICS):
            entry.setdefault("metrics", []).append({path: {"cache": False}})
        else:
            kind = "plots" if any(fnmatch.fnmatch(path, pattern) for pattern in PLOTS) else "outs"
            entry.setdefault(kind, []).append(path)
    return {key: value for key, value in entry.items() if value}


def pipeline(flow: Any) -> str:
    """The text of dvc.yaml."""
    order = {rule.name: number for number, rule in enumerate(flow.rules)}
    ordered = sorted(jobs(flow), key=lambda job: (order[job.rule.name], stage_name(job)))
    stages = {stage_name(job): stage(job) for job in ordered}
    if len(stages) < len(ordered):
        names = [stage_name(job) for job in ordered]
        twice = next(name for name in names if names.count(name) > 1)
        raise SystemExit(f"two jobs would be the stage {twice}: let their wildcards differ in letters or digits")
    text = yaml.dump({"stages": stages}, sort_keys=False, width=110, default_flow_style=None, allow_unicode=True)
    return HEADER + text


def digest() -> str:
    """One value for dvc.yaml and all that it follows from."""
    files = sorted({path for pattern in SOURCES for path in Path().glob(pattern)} | {PIPELINE})
    contents = [f"{path}\0{path.read_text()}" for path in files if path.exists()]
    return hashlib.sha256("\0".join(contents).encode()).hexdigest()


def in_step() -> bool:
    return IN_STEP.exists() and IN_STEP.read_text() == digest()


def write_pipeline(flow: Any) -> None:
    """Write dvc.yaml if it is not what follows from the jobs."""
    text = pipeline(flow)
    if not PIPELINE.exists() or PIPELINE.read_text() != text:
        PIPELINE.write_text(text)
        print("dvc.yaml: written again, for the jobs have changed")
    IN_STEP.parent.mkdir(exist_ok=True)
    IN_STEP.write_text(digest())


def locked_files() -> list[str]:
    """Every file that dvc.lock has as an output."""
    if not LOCK.exists():
        return []
    stages = yaml.load(LOCK.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)).get("stages", {})
    return [out["path"] for entry in stages.values() for out in entry.get("outs", [])]


class Proof:
    """What dvc.lock, the parameters and the files say of each stage."""

    def __init__(self, repo: Any) -> None:
        from dvc.utils.serialize import load_path

        self.stages = {stage.name: stage for stage in repo.index.stages}
        self.makers = {out.fs_path: (stage, out) for stage in self.stages.values() for out in stage.outs}
        self.parameters = load_path("params.yaml", repo.fs)
        self.hashes: dict[str, Any] = {}

    def matches(self, file: Any) -> bool:
        """Whether a dependency or an output has the content that dvc.lock says."""
        if file.fs_path not in self.hashes:
            self.hashes[file.fs_path] = file.get_hash()
        return bool(file.hash_info) and self.hashes[file.fs_path] == file.hash_info

    @functools.cache  # noqa: B019: a proof lives as long as the process
    def holds(self, name: str) -> bool:
        """Whether the command, the parameters and all that a stage reads are as in dvc.lock, and what there is of its
        outputs too. A missing dependency counts as it would come out of the stage that makes it, if that one holds."""
        stage = self.stages[name]
        if stage.cmd_changed or not all(out.hash_info and (not out.exists or self.matches(out)) for out in stage.outs):
            return False
        for dependency in stage.deps:
            if dependency in stage.params:
                if not self.same_parameters(dependency):
                    return False
            elif dependency.exists:
                if not self.matches(dependency):
                    return False
            else:
                maker, out = self.makers.get(dependency.fs_path, (None, None))
                if maker is None or out.hash_info != dependency.hash_info or not self.holds(maker.name):
                    return False
        return True

    def same_parameters(self, dependency: Any) -> bool:
        locked = dependency.hash_info.value or {}
        return set(dependency.params) == set(locked) and all(
            self.parameter(key) == value for key, value in locked.items()
        )

    def parameter(self, key: str) -> Any:
        return functools.reduce(lambda level, part: level.get(part, {}), key.split("."), self.parameters)

    def stored(self, name: str) -> bool:
        """Whether a stage holds, with all its files here and in DVC's cache: nothing is left to record."""
        files = [
            *self.stages[name].outs,
            *(dep for dep in self.stages[name].deps if dep not in self.stages[name].params),
        ]
        return (
            self.holds(name)
            and all(file.exists for file in files)
            and not any(out.use_cache and out.changed_cache() for out in self.stages[name].outs)
        )


def adopt(flow: Any, repo: Any) -> None:
    """Give Snakemake a record of each file from elsewhere: the job's, where DVC proves it current, else one that makes
    Snakemake repeat the job. Where dvc.lock does not know the job at all, Snakemake's own judgement stands."""
    proof, adopted, refused = Proof(repo), [], []
    records = flow.persistence
    flow.iocache.deactivate()
    for job in jobs(flow):
        name = stage_name(job)
        outputs = list(map(str, job.output))
        if not strangers(outputs):
            continue
        if proof.holds(name) and all(map(os.path.exists, outputs)):
            inputs = [modified(path) for path in job.input if os.path.exists(path)]
            if inputs and max(inputs) > min(map(modified, outputs)):
                for out in proof.stages[name].outs:
                    os.utime(out.fs_path, follow_symlinks=False)
                    repo.state.save(out.fs_path, out.fs, out.hash_info)
            for file in job.output:
                records.cleanup_metadata(file)
            asyncio.run(records.finished(job))
            adopted.append(name)
        elif any(out.hash_info for out in proof.stages[name].outs):
            record = MetadataRecord(rule=job.rule.name, params=[UNPROVED], record_format_version=RECORD_FORMAT_VERSION)
            for path in strangers(outputs):
                records._write_record(path, record)
            refused.append(name)
    if adopted:
        print(f"Snakemake: adopted {len(adopted)} results that dvc.lock proves current")
    if refused:
        print(f"Snakemake: will make again, for dvc.lock does not vouch for the files: {', '.join(refused)}")


def record(flow: Any, repo: Any) -> None:
    """Write into dvc.lock, and DVC's cache, the finished and current jobs that are not there yet: no others."""
    from dvc.repo import lock_repo

    proof = Proof(repo)
    current = [job for job in jobs(flow) if not flow.dag.needrun(job) and finished(job, flow.persistence)]
    stages = [proof.stages[stage_name(job)] for job in current if not proof.stored(stage_name(job))]
    if not stages:
        return
    with lock_repo(repo), repo.scm_context(quiet=True):
        links = "symlink" in repo.cache.local.cache_types  # a copy stays as it is, with its time
        for stage in stages:
            stage.save()
            stage.commit(relink=links)
        stages[0].dvcfile.dump_stages(stages, update_pipeline=False)
    print(f"dvc.lock: recorded {len(stages)} results")


def finished(job: Any, records: Any) -> bool:
    """Whether Snakemake made all files of a job, and nothing that it read was edited in the meantime."""
    outputs = list(map(str, job.output))
    if not all(os.path.exists(path) and made_here(path, records) for path in outputs):
        return False
    begun = min(records._read_record(path).starttime for path in outputs)
    ended = max(map(modified, outputs))
    edited = [path for path in job.input if begun < modified(path) <= ended]
    return not edited


def main(command: str) -> None:
    """One of the four commands."""
    os.environ["DDGM_BRIDGE"] = "off"  # this Snakemake is not to call the bridge
    with workflow() as flow:
        if command == "check":
            if not PIPELINE.exists() or PIPELINE.read_text() != pipeline(flow):
                raise SystemExit("dvc.yaml is not what the rules give: write 'python workflow/engines.py generate'")
            return
        write_pipeline(flow)
        if command == "generate":
            return
        from dvc.repo import Repo

        with Repo() as repo:
            if command == "record":
                record(flow, repo)
            adopt(flow, repo)


if __name__ == "__main__":
    commands = ("generate", "check", "adopt", "record")
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        raise SystemExit(f"write 'python workflow/engines.py COMMAND' with one of {', '.join(commands)}")
    main(sys.argv[1])
