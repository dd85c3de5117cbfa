rule fetch:
    """Download, or draw, one raw file, verified before anything uses it."""
    input:
        code=select.fetch_modules,
    output:
        "data/raw/{dataset}/{file}",
    log:
        "logs/fetch/{dataset}/{file}.log",
    wildcard_constraints:
        # Inception's weights are no data set's: see fetch_inception.
        dataset=r"(?!inception\b)[a-z][a-z0-9_]*",
    threads: 1
    params:
        cfg=select.pick_source,
    message:
        "Fetching {wildcards.file} of {wildcards.dataset}"
    shell:
        "ddgm fetch {wildcards.dataset} {wildcards.file} --params {params.cfg:q} --log {log}"


rule fetch_inception:
    """The weights of the net that Fréchet distances are computed with. What measures images gets them by itself."""
    output:
        "data/raw/inception/{file}",
    log:
        "logs/fetch/inception/{file}.log",
    threads: 1
    message:
        "Fetching {wildcards.file}"
    shell:
        "ddgm fetch inception {wildcards.file} --log {log}"


rule prepare:
    """One array file of one split, with its index, its faulty entries and a sheet that says what it is."""
    input:
        raw=select.raw_files,
        code=select.prepare_modules,
    output:
        array="data/prepared/{dataset}/{split}.npy",
        index="data/prepared/{dataset}/{split}.csv",
        faults="data/prepared/{dataset}/{split}_faults.csv",
        sheet="data/prepared/{dataset}/{split}.json",
    log:
        "logs/prepare/{dataset}/{split}.log",
    threads: select.workers(workflow.resource_settings.cores)
    params:
        cfg=select.pick_dataset(),
    message:
        "Preparing the {wildcards.split} split of {wildcards.dataset}"
    shell:
        "ddgm prepare {wildcards.dataset} {wildcards.split} --workers {threads} --params {params.cfg:q} --log {log}"


rule describe:
    """What a data set holds: counts, faults, mean and standard deviation of each channel."""
    input:
        arrays=select.splits("data/prepared/{dataset}/{split}.npy"),
        sheets=select.splits("data/prepared/{dataset}/{split}.json"),
        code=modules("ddgm.metrics.dataset"),
    output:
        report(
            "results/{branch}/data/{dataset}.csv",
            caption="../report/dataset.rst",
            category="Data",
        ),
    log:
        "logs/describe/{branch}/{dataset}.log",
    threads: 1
    params:
        cfg=select.pick_dataset(),
    message:
        "Describing {wildcards.dataset}"
    shell:
        "ddgm describe {wildcards.dataset} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_sheet:
    """A contact sheet of a data set: the first examples of each split."""
    input:
        arrays=select.splits("data/prepared/{dataset}/{split}.npy"),
        sheets=select.splits("data/prepared/{dataset}/{split}.json"),
        code=modules("ddgm.figures.sheet"),
    output:
        png=report(
            "results/{branch}/figures/sheet_{dataset}.png",
            caption="../report/sheet.rst",
            category="Data",
        ),
        pdf="results/{branch}/figures/sheet_{dataset}.pdf",
    log:
        "logs/draw/{branch}/sheet_{dataset}.log",
    threads: 1
    params:
        cfg=select.pick_dataset(),
    message:
        "Drawing a sheet of {wildcards.dataset}"
    shell:
        "ddgm draw sheet {wildcards.dataset} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule data:
    """Every data set of the paper, fetched, prepared and looked at."""
    input:
        select.data("paper"),
