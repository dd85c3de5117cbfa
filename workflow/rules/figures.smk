# fig3_steps_mnist is no fig3 of an experiment "steps_mnist": the longer name goes first.
workflow.ruleorder(
    *(f"draw_{name}" for name in sorted(figures.FIGURES, key=len, reverse=True))
)


for name, figure in figures.FIGURES.items():
    stem = f"{name}_{{experiment}}" if figure.each else name
    words = f"{name} {{experiment}}" if figure.each else name

    rule:
        """A figure of src/ddgm/figures/registry.py."""
        name:
            f"draw_{name}"
        input:
            *select.drawn_from(name, figure),
            code=modules(f"ddgm.figures.{name}"),
        output:
            png=report(
                f"results/{{branch}}/figures/{stem}.png",
                caption=f"../report/{name}.rst",
                category=figure.category,
            ),
            pdf=f"results/{{branch}}/figures/{stem}.pdf",
        log:
            f"logs/draw/{{branch}}/{stem}.log",
        threads: 1
        params:
            cfg=select.pick_figure(figure),
            figure=words,
        message:
            "Drawing {params.figure} of branch {wildcards.branch}"
        # No name of this loop: Snakemake reads it again when the job runs, and would have the last figure's.
        shell:
            "ddgm draw {params.figure} --branch {wildcards.branch} --params {params.cfg:q} --log {log}"


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


rule fig1:
    """Figure 1 of the paper."""
    input:
        select.figure("fig1", "paper"),


rule fig2:
    """Figure 2 of the paper."""
    input:
        select.figures("fig2", "paper"),


rule claims:
    """Every claim of the paper: what was measured, along training too, and a verdict."""
    input:
        select.judged("paper"),
        select.figures("traced", "paper"),


rule fig3:
    """Figure 3 of the paper, and what was measured of its digits."""
    input:
        select.figures("fig3", "paper"),


rule fig4:
    """Figure 4 of the paper, and what was measured of its images."""
    input:
        select.figures("fig4", "paper"),
