"""The subcommands of ``embedcache``: which there are, in the order of the help."""

import typer

from embedcache.build_commands import build, estimate, worker
from embedcache.care_commands import convert, encoders, gc, info, merge, remove, verify
from embedcache.exchange.commands import export_command, import_command
from embedcache.options import tell_version
from embedcache.prepare.commands import app as prepare_app

__all__ = ["app"]

app = typer.Typer(
    help="Run pretrained encoders once over every distinct sequence and keep their token embeddings in Zarr.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes cut the names of options at 80 columns
)
tell_version(app)
app.add_typer(prepare_app, name="prepare")
for command in (build, worker, estimate, info, encoders, verify, gc, convert, merge, remove):
    app.command()(command)
app.command("export")(export_command)
app.command("import")(import_command)
