"""Small DICOM series, written slice by slice."""

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

COSINES = {
    "axial": (1, 0, 0, 0, 1, 0),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "coronal": (1, 0, 0, 0, 0, -1),
    "oblique": (0.96, 0.28, 0, -0.28 * 0.8, 0.96 * 0.8, 0.6),
}
ROWS, COLUMNS, SPACING = 20, 24, (1.5, 2.0)  # between rows, between columns
GAP, ORIGIN = 3.0, np.array([-20.0, 12.5, 40.0])


def write_series(folder, voxels, *, plane="axial", series=None, study=None, prefix="IM"):
    """Files of `voxels` (n, rows, columns) in an order that their names do not tell."""
    folder.mkdir(parents=True, exist_ok=True)
    cosines = np.array(COSINES[plane], dtype=float)
    across = np.cross(cosines[:3], cosines[3:])
    shared = {"series": series or generate_uid(), "study": study or generate_uid()}
    frame = generate_uid()
    names = np.random.default_rng(0).permutation(len(voxels))
    for number, pixels in enumerate(voxels):
        position = ORIGIN + GAP * number * across
        one = slice_of(pixels, position, cosines, number=number, frame=frame, **shared)
        one.save_as(folder / f"{prefix}{names[number]:03d}", enforce_file_format=True)
    return folder


def slice_of(pixels, position, cosines, *, number, frame, series, study):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
    one.Modality, one.PatientID, one.PatientName = "CT", "1", "Test^Höhe"
    one.SpecificCharacterSet = "ISO_IR 192"
    for name in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(one, name, "")
    for name in ("StudyDate", "StudyTime", "ReferringPhysicianName", "PositionReferenceIndicator"):
        setattr(one, name, "")
    one.SeriesNumber, one.InstanceNumber = 1, number + 1
    one.Manufacturer = "tests"
    one.ImagePositionPatient = [f"{value:.6f}" for value in position]
    one.ImageOrientationPatient = [f"{value:.6f}" for value in cosines]
    one.PixelSpacing, one.SliceThickness = list(SPACING), GAP
    one.Rows, one.Columns = pixels.shape
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
    one.RescaleSlope, one.RescaleIntercept = 1, 0
    one.PixelData = pixels.astype(np.int16).tobytes()
    return one


def points_of(path):
    """World coordinates (LPS) of every foreground pixel of a DICOM SEG, by segment number."""
    seg = pydicom.dcmread(path)
    shared = seg.SharedFunctionalGroupsSequence[0]
    frames = np.reshape(seg.pixel_array, (-1, seg.Rows, seg.Columns))
    found = {}
    for pixels, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        holder = group if "PlaneOrientationSequence" in group else shared
        cosines = np.array(holder.PlaneOrientationSequence[0].ImageOrientationPatient, float)
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        spacing = [float(mm) for mm in shared.PixelMeasuresSequence[0].PixelSpacing]
        rows, columns = np.nonzero(pixels)
        world = (
            position
            + columns[:, None] * spacing[1] * cosines[:3]
            + rows[:, None] * spacing[0] * cosines[3:]
        )
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found.setdefault(int(number), []).append(world)
    return {number: np.concatenate(parts) for number, parts in found.items()}
