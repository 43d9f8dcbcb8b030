"""The laws, by the names that `--form` takes."""

from eval.laws.forms.broken import Broken
from eval.laws.forms.coupled import ChinchillaGamma, KaplanND
from eval.laws.forms.downstream import DownstreamExponential, DownstreamSigmoid
from eval.laws.forms.form import Form, Inputs, Parameter
from eval.laws.forms.kaplan import KaplanC, KaplanD, KaplanN, KaplanNS
from eval.laws.forms.powers import Chinchilla, Offset, Overtrained, Power, SumOfPowers
from eval.laws.forms.repeated import DataConstrained
from eval.laws.forms.routed import Routed
from train.records import InputError

__all__ = [
    "FORMS",
    "Chinchilla",
    "DownstreamExponential",
    "DownstreamSigmoid",
    "Form",
    "Inputs",
    "Parameter",
    "SumOfPowers",
    "get",
]

FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Power(),
        Offset(),
        Broken(1),
        Broken(2),
        KaplanN(),
        KaplanD(),
        KaplanC(),
        KaplanND(),
        KaplanNS(),
        Chinchilla(),
        ChinchillaGamma(),
        Overtrained(),
        DataConstrained(),
        Routed(),
        DownstreamExponential(),
        DownstreamSigmoid(),
    )
}


def get(name: str) -> Form:
    """The form with that name.

    Raises:
      InputError: there is none.
    """
    if name not in FORMS:
        raise InputError(f"form: {name!r} is not one of {', '.join(FORMS)}")
    return FORMS[name]
