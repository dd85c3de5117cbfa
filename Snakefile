"""Deep directed generative models with energy-based probability estimation: from raw data to every figure.

snakemake --cores 8 all     every figure and table of the paper
snakemake --cores 2 cpu     the same without colour images, which want a GPU
snakemake --cores 2 toy     the same on small stand-ins, without a network
snakemake --cores 1 fig3    one figure of the paper, and nothing that it does not need
snakemake --cores 2 claims  the paper's claims in two dimensions and on MNIST, measured and judged
"""

from ddgm.figures import registry as figures
from workflow import engines
from workflow.selection import Selection, modules, require_yaml

require_yaml("params.yaml")


configfile: "params.yaml"


select = Selection(config)


# Jobs run in the locked environment of .venv. The image is for `--software-deployment-method apptainer` alone: the
# Python to run `make setup` with.
container: "docker://python:3.12-slim"


wildcard_constraints:
    branch="paper|toy",
    dataset=r"[a-z][a-z0-9_]*",
    # metrics/claims.csv is no experiment's.
    experiment=r"(?!claims\b)[a-z][a-z0-9_]*",
    claim=r"[a-z][a-z0-9_]*",
    search=r"[a-z][a-z0-9_]*",
    split="train|val|test",


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"


rule all:
    """Every figure and table of the paper, and the report that shows them."""
    default_target: True
    input:
        select.everything("paper"),
        "results/paper/report.html",


rule cpu:
    """Every figure and table of the paper in which there are no colour images: what CPU cores can do in hours."""
    input:
        select.everything("paper", ("density", "digits")),


rule toy:
    """All four figures, metrics, claims, curves, a search and the report on small stand-ins."""
    input:
        select.everything("toy"),
        select.searches("toy"),
        "results/toy/report.html",


# DVC's side of every run: see docs/engines.md.
engines.before_run(workflow.is_main_process)


onsuccess:
    engines.after_run()


onerror:
    engines.after_run()
