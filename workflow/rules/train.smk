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
        progress="results/{branch}/models/{experiment}/progress.npz",
        experiment="results/{branch}/models/{experiment}/experiment.json",
        provenance="results/{branch}/models/{experiment}/provenance.json",
    log:
        "logs/train/{branch}/{experiment}.log",
    threads: select.threads
    resources:
        gpu=select.gpus,
    params:
        cfg=select.pick_training,
    message:
        "Training {wildcards.experiment}, all seeds"
    shell:
        "ddgm train {wildcards.experiment} --branch {wildcards.branch}"
        " --params {params.cfg:q} --log {log}"


rule classify:
    """The classifier that judges a data set's digits, all its seeds."""
    input:
        arrays=select.train_and_test,
        labels=select.labels,
        sheet="data/prepared/{dataset}/train.json",
        code=modules("ddgm.classifier"),
    output:
        weights="results/{branch}/classifiers/{dataset}/weights.safetensors",
        classifier="results/{branch}/classifiers/{dataset}/classifier.json",
        provenance="results/{branch}/classifiers/{dataset}/provenance.json",
        accuracy=report(
            "results/{branch}/classifiers/{dataset}/accuracy.csv",
            caption="../report/classifier.rst",
            category="Metrics",
        ),
    log:
        "logs/classify/{branch}/{dataset}.log",
    threads: select.classifier_threads
    params:
        cfg=select.pick_dataset("classifiers.{dataset}"),
    message:
        "Training the classifier of {wildcards.dataset}"
    shell:
        "ddgm classify {wildcards.dataset} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"
