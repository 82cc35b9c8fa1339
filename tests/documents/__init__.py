"""The documents say what is so: links lead somewhere, names are explained, commands exist, transcripts are true."""
