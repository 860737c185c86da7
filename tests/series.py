"""Small DICOM series, written slice by slice with pydicom."""

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

OBLIQUE = np.array([[0.96, 0.28, 0.0], [-0.224, 0.768, 0.6]])  # directions of rows and of columns


def write_series(folder, stored, *, turn=OBLIQUE, spacing=(1.5, 1.25), step=3.0, **changes):
    """A series of `stored` (slice, row, column), its files named in no order of place.

    `spacing` is that of rows and of columns; `changes` are header values of every slice, or
    functions of the slice's number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    normal = np.cross(*turn)
    names = np.random.default_rng(len(stored)).permutation(len(stored))
    paths = []
    for number, pixels in enumerate(stored):
        values = {
            "SeriesInstanceUID": series,
            "StudyInstanceUID": study,
            "FrameOfReferenceUID": frame,
            "ImagePositionPatient": list(np.array([-30.0, 20.5, 7.25]) + number * step * normal),
            "ImageOrientationPatient": list(turn.ravel()),
            "PixelSpacing": list(spacing),
            "SliceThickness": step,
            "InstanceNumber": number + 1,
            **{k: v(number) if callable(v) else v for k, v in changes.items()},
        }
        paths.append(write_slice(folder / f"IM{names[number]:04d}", pixels, values))
    return paths


def write_slice(path, pixels, values):
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = MRImageStorage
    data.SOPInstanceUID = generate_uid()
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = "p", "P^P", "", ""
    data.StudyID, data.StudyDate, data.StudyTime, data.AccessionNumber = "1", "", "", ""
    data.ReferringPhysicianName = ""
    data.Modality, data.SeriesNumber, data.SeriesDescription = "MR", 3, "T2 SPIR"
    data.ImageType = ["ORIGINAL", "PRIMARY"]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape[:2]
    signed = pixels.dtype.kind == "i"
    bits = 8 * pixels.dtype.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(signed)
    data.PixelData = pixels.tobytes()
    for name, value in values.items():
        if value is not None:
            setattr(data, name, value)
        elif name in data:
            delattr(data, name)
    data.save_as(path, enforce_file_format=True)
    return path
