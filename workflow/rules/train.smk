rule train:
    """The energy and the generator of one experiment, all its seeds."""
    input:
        data=select.prepared("train"),
        sheet=select.prepared("train", "json"),
        code=select.train_modules,
    output:
        weights="results/{branch}/models/{experiment}/weights.safetensors",
        snapshots="results/{branch}/models/{experiment}/snapshots.safetensors",
        history="results/{branch}/models/{experiment}/history.csv",
        experiment="results/{branch}/models/{experiment}/experiment.json",
        provenance="results/{branch}/models/{experiment}/provenance.json",
    log:
        "logs/train/{branch}/{experiment}.log",
    threads: select.threads
    resources:
        gpu=select.gpus,
    params:
        cfg=select.pick("experiments.{experiment}"),
    message:
        "Training {wildcards.experiment}, all seeds"
    shell:
        "ddgm train {wildcards.experiment} --branch {wildcards.branch}"
        " --params {params.cfg:q} --log {log}"
