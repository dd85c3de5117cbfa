rule report:
    """One page with all that a branch has found."""
    input:
        select.reported,
        code=select.report_code,
    output:
        "results/{branch}/report.html",
    log:
        "logs/report/{branch}.log",
    threads: 1
    params:
        cfg=select.pick_report,
    message:
        "Writing the report of branch {wildcards.branch}"
    shell:
        "python workflow/report.py {wildcards.branch} 2> {log}"
