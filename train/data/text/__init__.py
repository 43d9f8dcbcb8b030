"""Text as it comes: files, formats, the embedded corpus, vocabularies."""
