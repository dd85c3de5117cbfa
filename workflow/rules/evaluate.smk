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
    wildcard_constraints:
        experiment=select.measured_by("density", unknown=True),
    threads: 1
    params:
        cfg=select.pick_dataset("branches.{branch}.evaluation"),
    message:
        "Measuring {wildcards.experiment}"
    shell:
        "ddgm evaluate {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule evaluate_digits:
    """Evidence on a pair that draws digits: tables, and the arrays that figures show."""
    input:
        weights="results/{branch}/models/{experiment}/weights.safetensors",
        experiment="results/{branch}/models/{experiment}/experiment.json",
        provenance="results/{branch}/models/{experiment}/provenance.json",
        samples="results/{branch}/samples/{experiment}.npz",
        arrays=select.measured_on,
        judge=select.judge,
        code=select.evaluate_modules,
    output:
        metrics="results/{branch}/metrics/{experiment}.csv",
        interpolations="results/{branch}/interpolations/{experiment}.csv",
        crossings="results/{branch}/crossings/{experiment}.csv",
        evidence="results/{branch}/evidence/{experiment}.npz",
    log:
        "logs/evaluate/{branch}/{experiment}.log",
    wildcard_constraints:
        experiment=select.measured_by("digits"),
    threads: 1
    params:
        cfg=select.pick_dataset("branches.{branch}.digits"),
    message:
        "Measuring {wildcards.experiment}"
    shell:
        "ddgm evaluate {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule reference:
    """What the images of a data set score against themselves, and what samples are compared with."""
    input:
        array="data/prepared/{dataset}/train.npy",
        sheet="data/prepared/{dataset}/train.json",
        code=modules("ddgm.metrics.images", "ddgm.metrics.inception"),
    output:
        "results/{branch}/references/{dataset}.npz",
    log:
        "logs/reference/{branch}/{dataset}.log",
    threads: 1
    resources:
        gpu=select.inception_gpus,
    params:
        cfg=select.pick_reference,
    message:
        "Measuring the images of {wildcards.dataset} against themselves"
    shell:
        "ddgm reference {wildcards.dataset} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule evaluate_images:
    """Evidence on a pair that draws colour images: a table, and the arrays that figures show."""
    input:
        weights="results/{branch}/models/{experiment}/weights.safetensors",
        experiment="results/{branch}/models/{experiment}/experiment.json",
        provenance="results/{branch}/models/{experiment}/provenance.json",
        arrays=select.measured_on,
        reference=select.reference,
        other=select.other_domain,
        code=select.evaluate_modules,
    output:
        metrics="results/{branch}/metrics/{experiment}.csv",
        evidence="results/{branch}/evidence/{experiment}.npz",
    log:
        "logs/evaluate/{branch}/{experiment}.log",
    wildcard_constraints:
        experiment=select.measured_by("images"),
    threads: 1
    resources:
        gpu=select.inception_gpus,
    params:
        cfg=select.pick_images,
    message:
        "Measuring {wildcards.experiment}"
    shell:
        "ddgm evaluate {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule trace:
    """Evidence along a training, in two dimensions."""
    input:
        snapshots="results/{branch}/models/{experiment}/snapshots.safetensors",
        experiment="results/{branch}/models/{experiment}/experiment.json",
        fits=select.fit("trace", "traced"),
        code=modules("ddgm.metrics.trace"),
    output:
        "results/{branch}/traces/{experiment}.csv",
    log:
        "logs/trace/{branch}/{experiment}.log",
    threads: 1
    params:
        cfg=select.pick_dataset("branches.{branch}.tracing"),
    message:
        "Measuring {wildcards.experiment} along its training"
    shell:
        "ddgm trace {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule mix:
    """How a trained energy is sampled by Langevin chains, beside its generator."""
    input:
        weights="results/{branch}/models/{experiment}/weights.safetensors",
        experiment="results/{branch}/models/{experiment}/experiment.json",
        fits=select.fit("mix", "mixed"),
        code=modules("ddgm.metrics.mixing"),
    output:
        "results/{branch}/mixing/{experiment}.csv",
    log:
        "logs/mix/{branch}/{experiment}.log",
    threads: 1
    params:
        cfg=select.pick_dataset("branches.{branch}.mixing"),
    message:
        "Chains on the energy of {wildcards.experiment}"
    shell:
        "ddgm mix {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule anneal:
    """How likely held-out data are under a trained energy: log Z by annealed importance sampling."""
    input:
        weights="results/{branch}/models/{experiment}/weights.safetensors",
        experiment="results/{branch}/models/{experiment}/experiment.json",
        data=select.held_out,
        code=modules("ddgm.metrics.annealing"),
    output:
        "results/{branch}/likelihoods/{experiment}.csv",
    log:
        "logs/anneal/{branch}/{experiment}.log",
    threads: 1
    params:
        cfg=select.pick_dataset("branches.{branch}.annealing"),
    message:
        "Annealing to the energy of {wildcards.experiment}"
    shell:
        "ddgm anneal {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule search:
    """One experiment in many versions, drawn at random."""
    input:
        data=select.prepared("train"),
        sheet=select.prepared("train", "json"),
        judged=select.searched_with,
        code=select.search_modules,
    output:
        "results/{branch}/search/{experiment}.csv",
    log:
        "logs/search/{branch}/{experiment}.log",
    threads: select.threads
    resources:
        gpu=select.gpus,
    params:
        cfg=select.pick_search,
    message:
        "Searching for settings of {wildcards.experiment}"
    shell:
        "ddgm search {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule rank:
    """Every version that a search has tried, the best first."""
    input:
        tables=select.searched,
        code=modules("ddgm.search"),
    output:
        report(
            "results/{branch}/searches/{search}.csv",
            caption="../report/search.rst",
            category="Metrics",
        ),
    log:
        "logs/rank/{branch}/{search}.log",
    threads: 1
    params:
        cfg=select.pick("branches.{branch}.searches.{search}"),
    message:
        "Ranking the search {wildcards.search} of branch {wildcards.branch}"
    shell:
        "ddgm rank {wildcards.search} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule judge:
    """The paper's claims, tested: a verdict for each, by each recipe."""
    input:
        tables=select.tested,
        code=modules("ddgm.metrics.claims"),
    output:
        report(
            "results/{branch}/metrics/claims.csv",
            caption="../report/claims.rst",
            category="Claims",
        ),
    log:
        "logs/judge/{branch}.log",
    threads: 1
    params:
        cfg=select.pick_claims,
    message:
        "Judging the claims of branch {wildcards.branch}"
    shell:
        "ddgm judge --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule search_2d:
    """What was tried in two dimensions, for the paper's recipe and for ours, and what came out."""
    input:
        select.searches("paper", "density"),


rule search_digits:
    """The same for the recipes of MNIST."""
    input:
        select.searches("paper", "digits"),


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
        "results/{branch}/metrics.json",
    log:
        "logs/tabulate/{branch}.log",
    threads: 1
    params:
        cfg=select.pick_shown("all"),
    message:
        "Gathering the metrics of branch {wildcards.branch}"
    shell:
        "ddgm tabulate --branch {wildcards.branch} --params {params.cfg:q} --log {log}"
