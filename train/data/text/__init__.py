"""Raw text: files, formats, the embedded corpus, vocabularies."""
