"""Reading DICOM: the series of a folder, the grid, and the pixels.

Only tags about geometry and pixel values are read from headers, so that no name of a person or a
place can reach a message, a log or an output.
"""
