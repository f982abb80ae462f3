"""`penstock sign-in`"""

from __future__ import annotations

import typer

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def sign_in() -> None:
    """Print a link that signs a browser in; it works once, within a quarter of an hour."""
    from penstock.services.cli.client import connect

    client = connect()
    found = client.post("sign-in-links", {})
    print(f"{client.instance.url.rstrip('/')}/sign-in?token={found['token']}")
