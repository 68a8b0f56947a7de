"""DICOM radiographs: header, frame, display."""
