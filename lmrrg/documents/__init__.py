"""A draft report as other systems take it: FHIR R4 and DICOM Structured Reports."""
