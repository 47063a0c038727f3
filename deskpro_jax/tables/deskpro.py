"""Table 3 of the DeSKPro paper: what each component brings, measured on Celeb-reID-light."""

from __future__ import annotations

from deskpro_jax.tables.spec import Claim, Row, Table

_COMPONENTS = {
    "G": r"$\mathcal{G}$",
    "CSA": "CSA",
    "L_att": r"$\mathcal{L}_{att}$",
    "student without L_fkp": r"$\phi_s^-$",
    "student with L_fkp": r"$\phi_s^+$",
    "teacher": r"$\phi_t$",
}
_G, _CSA, _ATT, _PLAIN, _FKP, _TEACHER = _COMPONENTS
_TAUGHT = (("teacher.checkpoint", "teacher"),)
_BODY = ("init.body", "csa_att")

TABLE_3 = Table(
    "Wu et al., Identity-Sensitive Knowledge Propagation for Cloth-Changing Person Re-Identification, ICIP 2022, "
    "Table 3, on Celeb-reID-light, one run",
    _COMPONENTS,
    (
        Row("baseline", "1 (baseline)", (_G,), (32.9, 18.8)),
        Row("csa", "2", (_G, _CSA), (33.5, 20.1)),
        Row("csa_att", "3", (_G, _CSA, _ATT), (37.2, 20.3)),
        Row("face", "4", (_PLAIN,), (41.6, 20.7)),
        Row("face_fkp", "5", (_FKP,), (47.0, 25.6), _TAUGHT),
        Row("teacher", "6", (_TEACHER,), (47.4, 25.8)),
        Row("two_stream", "7", (_G, _CSA, _ATT, _PLAIN), (50.1, 27.4), (), (_BODY, ("init.face", "face"))),
        Row("deskpro", "DeSKPro", (_G, _CSA, _ATT, _FKP), (52.0, 29.8), _TAUGHT, (_BODY, ("init.face", "face_fkp"))),
        Row("deskpro_star", "DeSKPro*", (_G, _CSA, _ATT, _TEACHER), (53.7, 30.9), _TAUGHT, (_BODY,)),
    ),
    (
        Claim("CSA + L_att above the baseline", "csa_att", ("baseline",)),
        Claim("L_fkp above the student without it", "face_fkp", ("face",)),
        Claim("two streams above either alone", "deskpro", ("csa_att", "face_fkp")),
        Claim("two streams above either alone, without L_fkp", "two_stream", ("csa_att", "face")),
    ),
    ("model.body", "model.face", "model.attention", "loss.attention_weight", "loss.alpha"),
)
