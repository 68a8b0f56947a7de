"""Published system means of the ReXrank leaderboard.

Each row has the parts of RadCliQ, rounded, and the scores computed from them.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """One system on one test set."""

    data: str
    system: str
    bleu2: float
    bertscore: float
    semb: float
    radgraph: float
    radcliq_v0: float
    radcliq_v1: float


ROWS = (
    Row("chexpert_plus-valid", "CheXagent", 0.077, -0.056, 0.284, 0.039, 5.147, 2.213),
    Row("chexpert_plus-valid", "CheXpertPlus-findings", 0.088, -0.041, 0.306, 0.043, 5.06, 2.16),
    Row("chexpert_plus-valid", "Cvt2distilgpt2", 0.083, -0.052, 0.288, 0.038, 5.132, 2.202),
    Row("chexpert_plus-valid", "MedVersa", 0.09, 0.013, 0.337, 0.05, 4.831, 2.031),
    Row("chexpert_plus-valid", "RadFM", 0.067, -0.038, 0.229, 0.027, 5.206, 2.251),
    Row("chexpert_plus-valid", "RaDialog", 0.086, -0.035, 0.348, 0.041, 4.967, 2.111),
    Row("chexpert_plus-valid", "RGRG", 0.103, -0.039, 0.263, 0.047, 5.139, 2.194),
    Row("chexpert_plus-valid", "VLCI", 0.084, -0.092, 0.248, 0.032, 5.34, 2.317),
    Row("chexpert_plus-valid", "LLM-CXR", 0.032, -0.082, 0.201, 0.013, 5.388, 2.369),
    Row("chexpert_plus-valid", "GPT4V", 0.055, -0.065, 0.208, 0.028, 5.318, 2.316),
    Row("iu_xray-valid", "CheXagent", 0.084, 0.353, 0.405, 0.13, 3.548, 1.302),
    Row("iu_xray-valid", "CheXpertPlus-findings", 0.169, 0.342, 0.534, 0.156, 3.361, 1.161),
    Row("iu_xray-valid", "Cvt2distilgpt2", 0.192, 0.377, 0.556, 0.191, 3.175, 1.037),
    Row("iu_xray-valid", "MedVersa", 0.184, 0.497, 0.546, 0.226, 2.768, 0.804),
    Row("iu_xray-valid", "RadFM", 0.187, 0.463, 0.507, 0.227, 2.944, 0.898),
    Row("iu_xray-valid", "RaDialog", 0.16, 0.403, 0.509, 0.197, 3.151, 1.034),
    Row("iu_xray-valid", "RGRG", 0.232, 0.436, 0.541, 0.238, 2.977, 0.896),
    Row("iu_xray-valid", "VLCI", 0.113, 0.325, 0.481, 0.209, 3.386, 1.175),
    Row("iu_xray-valid", "LLM-CXR", 0.042, 0.178, 0.071, 0.027, 4.833, 2.051),
    Row("iu_xray-valid", "GPT4V", 0.083, 0.233, 0.414, 0.157, 3.849, 1.458),
    Row("iu_xray", "CheXagent", 0.102, 0.38, 0.494, 0.157, 3.272, 1.137),
    Row("iu_xray", "CheXpertPlus-findings", 0.173, 0.352, 0.588, 0.159, 3.225, 1.085),
    Row("iu_xray", "Cvt2distilgpt2", 0.192, 0.39, 0.605, 0.2, 3.029, 0.956),
    Row("iu_xray", "MedVersa", 0.195, 0.518, 0.601, 0.244, 2.581, 0.692),
    Row("iu_xray", "RadFM", 0.196, 0.479, 0.556, 0.234, 2.8, 0.815),
    Row("iu_xray", "RaDialog", 0.175, 0.419, 0.545, 0.198, 3.044, 0.97),
    Row("iu_xray", "RGRG", 0.24, 0.447, 0.603, 0.248, 2.818, 0.803),
    Row("iu_xray", "VLCI", 0.115, 0.332, 0.472, 0.203, 3.393, 1.18),
    Row("iu_xray", "LLM-CXR", 0.035, 0.175, 0.061, 0.023, 4.863, 2.072),
    Row("iu_xray", "GPT4V", 0.079, 0.235, 0.403, 0.16, 3.856, 1.462),
    Row("mimic-cxr-valid", "CheXagent", 0.136, 0.362, 0.43, 0.196, 3.407, 1.181),
    Row("mimic-cxr-valid", "CheXpertPlus-findings", 0.14, 0.339, 0.462, 0.181, 3.443, 1.206),
    Row("mimic-cxr-valid", "Cvt2distilgpt2", 0.133, 0.318, 0.428, 0.17, 3.582, 1.287),
    Row("mimic-cxr-valid", "MedVersa", 0.159, 0.432, 0.504, 0.259, 2.972, 0.912),
    Row("mimic-cxr-valid", "RadFM", 0.119, 0.354, 0.379, 0.172, 3.554, 1.276),
    Row("mimic-cxr-valid", "RaDialog", 0.13, 0.364, 0.448, 0.198, 3.358, 1.156),
    Row("mimic-cxr-valid", "RGRG", 0.165, 0.381, 0.462, 0.237, 3.246, 1.067),
    Row("mimic-cxr-valid", "VLCI", 0.141, 0.295, 0.422, 0.168, 3.671, 1.334),
    Row("mimic-cxr-valid", "LLM-CXR", 0.034, 0.171, 0.127, 0.04, 4.725, 1.992),
    Row("mimic-cxr-valid", "GPT4V", 0.067, 0.226, 0.244, 0.112, 4.25, 1.696),
    Row("mimic-cxr", "CheXagent", 0.094, 0.304, 0.331, 0.146, 3.816, 1.437),
    Row("mimic-cxr", "CheXpertPlus-mimic", 0.128, 0.308, 0.365, 0.168, 3.729, 1.369),
    Row("mimic-cxr", "Cvt2distilgpt2", 0.109, 0.278, 0.315, 0.145, 3.939, 1.498),
    Row("mimic-cxr", "MedVersa", 0.193, 0.43, 0.315, 0.273, 3.337, 1.088),
    Row("mimic-cxr", "RadFM", 0.081, 0.281, 0.245, 0.111, 4.093, 1.604),
    Row("mimic-cxr", "RaDialog", 0.112, 0.322, 0.381, 0.168, 3.647, 1.33),
    Row("mimic-cxr", "RGRG", 0.125, 0.323, 0.337, 0.176, 3.723, 1.363),
    Row("mimic-cxr", "VLCI", 0.124, 0.252, 0.293, 0.136, 4.081, 1.573),
    Row("mimic-cxr", "LLM-CXR", 0.036, 0.158, 0.15, 0.047, 4.712, 1.983),
    Row("mimic-cxr", "GPT4V", 0.065, 0.204, 0.19, 0.085, 4.457, 1.819),
)
