"""What a terminal shows. The only importer of rich; imported only when something is drawn.

Foreign text is sanitised first and then wrapped in `rich.text.Text`: no markup, no emoji codes, no
highlighting ever touches it. Whether to draw at all is decided in `streamkit.cli.output.terminal`.
"""
