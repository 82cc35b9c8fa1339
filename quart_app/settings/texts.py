"""What no setting's text may look like, because something before this service didn't do its work."""

import re


def text_fault(text: str, *, secret: bool, spaced: bool) -> str | None:
    """What is wrong with the text of a setting before it is read, if anything; never with a part of the text.

    `secret` texts may hold anything inside. White space around `spaced` ones is ignored.
    """
    if re.match(r"@Microsoft\.(KeyVault|AppConfiguration)\(", text):
        return (
            "is an unresolved reference; let the app's identity read the secret (role 'Key Vault Secrets User'), and "
            "check the reference's address"
        )
    if re.match(r"secretref:|keyvaultref:", text):
        return "is a reference, not the secret itself; it is resolved only where Azure Container Apps sets the variable"
    if re.fullmatch(r"\$\{[^{}]*\}|\$\([^()]*\)|%\w+%", text) or (not secret and re.search(r"\$\{", text)):
        return "holds a variable that nothing has replaced; write its value"
    if len(text) > 1 and text[0] in _QUOTES and text[-1] in _QUOTES:
        return "stands between quotation marks; leave them out"
    if not spaced and text != text.strip():
        where = "ends" if text == text.lstrip() else "begins"
        return f"{where} with white space; leave it out"
    return None


_QUOTES = "\"'`“”„"
