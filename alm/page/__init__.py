"""A page in the browser for one checkpoint: ask about a clip, speak, make a sound, hear what the codec keeps."""
