rule sample:
    """Samples, interpolations in z and, in two dimensions, the energy on a grid."""
    input:
        weights="results/{branch}/models/{experiment}/weights.safetensors",
        experiment="results/{branch}/models/{experiment}/experiment.json",
        provenance="results/{branch}/models/{experiment}/provenance.json",
        code=modules("ddgm.sampling"),
    output:
        "results/{branch}/samples/{experiment}.npz",
    log:
        "logs/sample/{branch}/{experiment}.log",
    threads: 1
    params:
        cfg=select.pick_dataset("branches.{branch}.sampling"),
    message:
        "Sampling from {wildcards.experiment}"
    shell:
        "ddgm sample {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule evaluate:
    """Evidence on one trained pair: one row for each seed and metric."""
    input:
        weights="results/{branch}/models/{experiment}/weights.safetensors",
        experiment="results/{branch}/models/{experiment}/experiment.json",
        arrays=select.measured_on,
        code=select.evaluate_modules,
    output:
        "results/{branch}/metrics/{experiment}.csv",
    log:
        "logs/evaluate/{branch}/{experiment}.log",
    threads: 1
    params:
        cfg=select.pick_dataset("branches.{branch}.evaluation"),
    message:
        "Measuring {wildcards.experiment}"
    shell:
        "ddgm evaluate {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule tabulate:
    """Every metric of a branch: mean and standard deviation over seeds."""
    input:
        tables=select.shown("all", "results/{branch}/metrics/{experiment}.csv"),
        code=modules("ddgm.metrics.table"),
    output:
        report(
            "results/{branch}/metrics.csv",
            caption="../report/metrics.rst",
            category="Metrics",
        ),
    log:
        "logs/tabulate/{branch}.log",
    threads: 1
    params:
        cfg=select.pick_shown("all"),
    message:
        "Gathering the metrics of branch {wildcards.branch}"
    shell:
        "ddgm tabulate --branch {wildcards.branch} --params {params.cfg:q} --log {log}"
