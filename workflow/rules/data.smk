rule fetch:
    """Download, or draw, one raw file, verified before anything uses it."""
    input:
        code=select.fetch_modules,
    output:
        "data/raw/{dataset}/{file}",
    log:
        "logs/fetch/{dataset}/{file}.log",
    threads: 1
    params:
        cfg=select.pick("datasets.{dataset}"),
    message:
        "Fetching {wildcards.file} of {wildcards.dataset}"
    shell:
        "ddgm fetch {wildcards.dataset} {wildcards.file} --params {params.cfg:q} --log {log}"


rule prepare:
    """One array file of one split, with its index."""
    input:
        raw=select.raw_files,
        code=select.prepare_modules,
    output:
        array="data/prepared/{dataset}/{split}.npy",
        index="data/prepared/{dataset}/{split}.csv",
    log:
        "logs/prepare/{dataset}/{split}.log",
    threads: 1
    params:
        cfg=select.pick("datasets.{dataset}"),
    message:
        "Preparing the {wildcards.split} split of {wildcards.dataset}"
    shell:
        "ddgm prepare {wildcards.dataset} {wildcards.split} --params {params.cfg:q} --log {log}"
