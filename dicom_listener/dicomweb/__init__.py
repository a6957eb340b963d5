"""DICOMweb (PS3.18 §10.4 to §10.6): Studies service over HTTP, in a process of its own."""
