# fig3_steps_mnist is no fig3 of an experiment "steps_mnist", and so for fig4.
ruleorder:
    draw_fig3_steps
    > draw_fig3_crossings
    > draw_fig3_neighbours
    > draw_fig3_energies
    > draw_fig3
    > draw_fig4_ordered
    > draw_fig4_lines
    > draw_fig4_progress
    > draw_fig4_curves
    > draw_fig4_energies
    > draw_fig4_neighbours
    > draw_fig4_landscape
    > draw_fig4


rule draw_fig1:
    """Figure 1: the framework."""
    input:
        code=modules("ddgm.figures.fig1"),
    output:
        png=report(
            "results/{branch}/figures/fig1.png",
            caption="../report/fig1.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig1.pdf",
    log:
        "logs/draw/{branch}/fig1.log",
    threads: 1
    params:
        cfg=select.pick(),
    message:
        "Drawing fig1 of branch {wildcards.branch}"
    shell:
        "ddgm draw fig1 --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig2:
    """Figure 2: samples, energy and density in two dimensions."""
    input:
        samples=select.shown("fig2", "results/{branch}/samples/{experiment}.npz"),
        data=select.shown("fig2", "data/prepared/{dataset}/train.npy"),
        code=modules("ddgm.figures.fig2"),
    output:
        png=report(
            "results/{branch}/figures/fig2.png",
            caption="../report/fig2.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig2.pdf",
    log:
        "logs/draw/{branch}/fig2.log",
    threads: 1
    params:
        cfg=select.pick_shown("fig2"),
    message:
        "Drawing fig2 of branch {wildcards.branch}"
    shell:
        "ddgm draw fig2 --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig2_extended:
    """Densities of data, energy model and generator, and their errors."""
    input:
        samples=select.shown("fig2", "results/{branch}/samples/{experiment}.npz"),
        metrics=select.shown("fig2", "results/{branch}/metrics/{experiment}.csv"),
        code=modules("ddgm.figures.fig2_extended"),
    output:
        png=report(
            "results/{branch}/figures/fig2_extended.png",
            caption="../report/fig2_extended.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig2_extended.pdf",
    log:
        "logs/draw/{branch}/fig2_extended.log",
    threads: 1
    params:
        cfg=select.pick_shown("fig2"),
    message:
        "Drawing fig2_extended of branch {wildcards.branch}"
    shell:
        "ddgm draw fig2_extended --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_claim:
    """What was measured of one claim."""
    input:
        verdicts="results/{branch}/metrics/claims.csv",
        tables=select.claim_tables,
        code=modules("ddgm.figures.claims"),
    output:
        png=report(
            "results/{branch}/figures/claim_{claim}.png",
            caption="../report/claim.rst",
            category="Claims",
        ),
        pdf="results/{branch}/figures/claim_{claim}.pdf",
    log:
        "logs/draw/{branch}/claim_{claim}.log",
    threads: 1
    params:
        cfg=select.pick_claim,
    message:
        "Drawing the claim {wildcards.claim} of branch {wildcards.branch}"
    shell:
        "ddgm draw claim {wildcards.claim} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig3:
    """Figure 3: interpolation in z between samples."""
    input:
        samples="results/{branch}/samples/{experiment}.npz",
        code=modules("ddgm.figures.fig3"),
    output:
        png=report(
            "results/{branch}/figures/fig3_{experiment}.png",
            caption="../report/fig3.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig3_{experiment}.pdf",
    log:
        "logs/draw/{branch}/fig3_{experiment}.log",
    threads: 1
    params:
        cfg=select.pick("experiments.{experiment}.title"),
    message:
        "Drawing fig3 {wildcards.experiment} of branch {wildcards.branch}"
    shell:
        "ddgm draw fig3 {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig3_steps:
    """Figure 3 with the class and the energy of each step."""
    input:
        evidence="results/{branch}/evidence/{experiment}.npz",
        table="results/{branch}/interpolations/{experiment}.csv",
        code=modules("ddgm.figures.fig3_steps"),
    output:
        png=report(
            "results/{branch}/figures/fig3_steps_{experiment}.png",
            caption="../report/fig3_steps.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig3_steps_{experiment}.pdf",
    log:
        "logs/draw/{branch}/fig3_steps_{experiment}.log",
    threads: 1
    params:
        cfg=select.pick("experiments.{experiment}.title"),
    message:
        "Drawing fig3_steps {wildcards.experiment} of branch {wildcards.branch}"
    shell:
        "ddgm draw fig3_steps {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig3_crossings:
    """Which digits lie between two digits."""
    input:
        table="results/{branch}/crossings/{experiment}.csv",
        code=modules("ddgm.figures.fig3_crossings"),
    output:
        png=report(
            "results/{branch}/figures/fig3_crossings_{experiment}.png",
            caption="../report/fig3_crossings.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig3_crossings_{experiment}.pdf",
    log:
        "logs/draw/{branch}/fig3_crossings_{experiment}.log",
    threads: 1
    params:
        cfg=select.pick("experiments.{experiment}.title"),
    message:
        "Drawing fig3_crossings {wildcards.experiment} of branch {wildcards.branch}"
    shell:
        "ddgm draw fig3_crossings {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig3_neighbours:
    """Samples beside the training digits nearest to them."""
    input:
        evidence="results/{branch}/evidence/{experiment}.npz",
        code=modules("ddgm.figures.fig3_neighbours"),
    output:
        png=report(
            "results/{branch}/figures/fig3_neighbours_{experiment}.png",
            caption="../report/fig3_neighbours.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig3_neighbours_{experiment}.pdf",
    log:
        "logs/draw/{branch}/fig3_neighbours_{experiment}.log",
    threads: 1
    params:
        cfg=select.pick("experiments.{experiment}.title"),
    message:
        "Drawing fig3_neighbours {wildcards.experiment} of branch {wildcards.branch}"
    shell:
        "ddgm draw fig3_neighbours {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig3_energies:
    """Energies of digits and of other inputs, and how they change with each pixel."""
    input:
        evidence="results/{branch}/evidence/{experiment}.npz",
        code=modules("ddgm.figures.fig3_energies"),
    output:
        png=report(
            "results/{branch}/figures/fig3_energies_{experiment}.png",
            caption="../report/fig3_energies.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig3_energies_{experiment}.pdf",
    log:
        "logs/draw/{branch}/fig3_energies_{experiment}.log",
    threads: 1
    params:
        cfg=select.pick("experiments.{experiment}.title"),
    message:
        "Drawing fig3_energies {wildcards.experiment} of branch {wildcards.branch}"
    shell:
        "ddgm draw fig3_energies {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig4:
    """Figure 4: samples of an image experiment."""
    input:
        samples="results/{branch}/samples/{experiment}.npz",
        code=modules("ddgm.figures.fig4"),
    output:
        png=report(
            "results/{branch}/figures/fig4_{experiment}.png",
            caption="../report/fig4.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig4_{experiment}.pdf",
    log:
        "logs/draw/{branch}/fig4_{experiment}.log",
    threads: 1
    params:
        cfg=select.pick("experiments.{experiment}.title"),
    message:
        "Drawing fig4 {wildcards.experiment} of branch {wildcards.branch}"
    shell:
        "ddgm draw fig4 {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig4_ordered:
    """Samples in the order of their energy."""
    input:
        evidence="results/{branch}/evidence/{experiment}.npz",
        code=modules("ddgm.figures.fig4_ordered"),
    output:
        png=report(
            "results/{branch}/figures/fig4_ordered_{experiment}.png",
            caption="../report/fig4_ordered.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig4_ordered_{experiment}.pdf",
    log:
        "logs/draw/{branch}/fig4_ordered_{experiment}.log",
    threads: 1
    params:
        cfg=select.pick("experiments.{experiment}.title"),
    message:
        "Drawing fig4_ordered {wildcards.experiment} of branch {wildcards.branch}"
    shell:
        "ddgm draw fig4_ordered {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig4_lines:
    """Images between two samples, along straight lines in z."""
    input:
        samples="results/{branch}/samples/{experiment}.npz",
        code=modules("ddgm.figures.fig4_lines"),
    output:
        png=report(
            "results/{branch}/figures/fig4_lines_{experiment}.png",
            caption="../report/fig4_lines.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig4_lines_{experiment}.pdf",
    log:
        "logs/draw/{branch}/fig4_lines_{experiment}.log",
    threads: 1
    params:
        cfg=select.pick("experiments.{experiment}.title"),
    message:
        "Drawing fig4_lines {wildcards.experiment} of branch {wildcards.branch}"
    shell:
        "ddgm draw fig4_lines {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig4_progress:
    """The same z along training."""
    input:
        progress="results/{branch}/models/{experiment}/progress.npz",
        code=modules("ddgm.figures.fig4_progress"),
    output:
        png=report(
            "results/{branch}/figures/fig4_progress_{experiment}.png",
            caption="../report/fig4_progress.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig4_progress_{experiment}.pdf",
    log:
        "logs/draw/{branch}/fig4_progress_{experiment}.log",
    threads: 1
    params:
        cfg=select.pick("experiments.{experiment}.title"),
    message:
        "Drawing fig4_progress {wildcards.experiment} of branch {wildcards.branch}"
    shell:
        "ddgm draw fig4_progress {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig4_curves:
    """Energies and the variance of samples along training."""
    input:
        history="results/{branch}/models/{experiment}/history.csv",
        code=modules("ddgm.figures.fig4_curves"),
    output:
        png=report(
            "results/{branch}/figures/fig4_curves_{experiment}.png",
            caption="../report/fig4_curves.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig4_curves_{experiment}.pdf",
    log:
        "logs/draw/{branch}/fig4_curves_{experiment}.log",
    threads: 1
    params:
        cfg=select.pick("experiments.{experiment}.title"),
    message:
        "Drawing fig4_curves {wildcards.experiment} of branch {wildcards.branch}"
    shell:
        "ddgm draw fig4_curves {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig4_energies:
    """Energies of pictures and of other inputs."""
    input:
        evidence="results/{branch}/evidence/{experiment}.npz",
        code=modules("ddgm.figures.fig4_energies"),
    output:
        png=report(
            "results/{branch}/figures/fig4_energies_{experiment}.png",
            caption="../report/fig4_energies.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig4_energies_{experiment}.pdf",
    log:
        "logs/draw/{branch}/fig4_energies_{experiment}.log",
    threads: 1
    params:
        cfg=select.pick("experiments.{experiment}.title"),
    message:
        "Drawing fig4_energies {wildcards.experiment} of branch {wildcards.branch}"
    shell:
        "ddgm draw fig4_energies {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig4_neighbours:
    """Samples above the training pictures nearest to them."""
    input:
        evidence="results/{branch}/evidence/{experiment}.npz",
        code=modules("ddgm.figures.fig4_neighbours"),
    output:
        png=report(
            "results/{branch}/figures/fig4_neighbours_{experiment}.png",
            caption="../report/fig4_neighbours.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig4_neighbours_{experiment}.pdf",
    log:
        "logs/draw/{branch}/fig4_neighbours_{experiment}.log",
    threads: 1
    params:
        cfg=select.pick("experiments.{experiment}.title"),
    message:
        "Drawing fig4_neighbours {wildcards.experiment} of branch {wildcards.branch}"
    shell:
        "ddgm draw fig4_neighbours {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig4_landscape:
    """The energy in a plane of pictures, and along descents."""
    input:
        evidence="results/{branch}/evidence/{experiment}.npz",
        code=modules("ddgm.figures.fig4_landscape"),
    output:
        png=report(
            "results/{branch}/figures/fig4_landscape_{experiment}.png",
            caption="../report/fig4_landscape.rst",
            category="Figures",
        ),
        pdf="results/{branch}/figures/fig4_landscape_{experiment}.pdf",
    log:
        "logs/draw/{branch}/fig4_landscape_{experiment}.log",
    threads: 1
    params:
        cfg=select.pick("experiments.{experiment}.title"),
    message:
        "Drawing fig4_landscape {wildcards.experiment} of branch {wildcards.branch}"
    shell:
        "ddgm draw fig4_landscape {wildcards.experiment} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_curves:
    """Energies and entropy along training."""
    input:
        histories=select.shown(
            "all", "results/{branch}/models/{experiment}/history.csv"
        ),
        code=modules("ddgm.figures.curves"),
    output:
        png=report(
            "results/{branch}/figures/curves.png",
            caption="../report/curves.rst",
            category="Training",
        ),
        pdf="results/{branch}/figures/curves.pdf",
    log:
        "logs/draw/{branch}/curves.log",
    threads: 1
    params:
        cfg=select.pick_shown("all"),
    message:
        "Drawing curves of branch {wildcards.branch}"
    shell:
        "ddgm draw curves --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule draw_fig2_curves:
    """Divergences and energies along training, in two dimensions."""
    input:
        traces=select.shown("traced", "results/{branch}/traces/{experiment}.csv"),
        histories=select.shown(
            "traced", "results/{branch}/models/{experiment}/history.csv"
        ),
        code=modules("ddgm.figures.fig2_curves"),
    output:
        png=report(
            "results/{branch}/figures/fig2_curves.png",
            caption="../report/fig2_curves.rst",
            category="Training",
        ),
        pdf="results/{branch}/figures/fig2_curves.pdf",
    log:
        "logs/draw/{branch}/fig2_curves.log",
    threads: 1
    params:
        cfg=select.pick_shown("traced"),
    message:
        "Drawing fig2_curves of branch {wildcards.branch}"
    shell:
        "ddgm draw fig2_curves --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


rule fig1:
    """Figure 1 of the paper."""
    input:
        select.figure("fig1", "paper"),


rule fig2:
    """Figure 2 of the paper."""
    input:
        select.figure("fig2", "paper"),
        select.figure("fig2_extended", "paper"),


rule claims:
    """Every claim of the paper: what was measured, along training too, and a verdict."""
    input:
        "results/paper/metrics/claims.csv",
        select.figure("fig2_curves", "paper"),
        [
            file
            for name in select.claim_figures("paper")
            for file in select.figure(name, "paper")
        ],


rule fig3:
    """Figure 3 of the paper, and what was measured of its digits."""
    input:
        select.figure("fig3", "paper"),
        [file for name in select.digit_figures for file in select.figure(name, "paper")],


rule fig4:
    """Figure 4 of the paper, and what was measured of its images."""
    input:
        select.figure("fig4", "paper"),
        [file for name in select.image_figures for file in select.figure(name, "paper")],
