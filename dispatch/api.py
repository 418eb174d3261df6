"""What other packages may use of dispatch."""

from dispatch.loop import Tally, run_all, run_round, work
from dispatch.model import Policy
from dispatch.offers import (
    CertificateLapsed,
    Nobody,
    NoSuchAssignment,
    NotEligible,
    NothingToDispatch,
    Offered,
    OfferGone,
    accept_offer,
    accept_result,
    assign_to,
    check_in,
    dispatch_ticket,
    reject_offer,
    reject_result,
    submit_result,
)
from dispatch.policy import BadPolicy, read_policy
from dispatch.store import NoSuchEngineer

__all__ = [
    "BadPolicy",
    "CertificateLapsed",
    "NoSuchAssignment",
    "NoSuchEngineer",
    "Nobody",
    "NotEligible",
    "NothingToDispatch",
    "OfferGone",
    "Offered",
    "Policy",
    "Tally",
    "accept_offer",
    "accept_result",
    "assign_to",
    "check_in",
    "dispatch_ticket",
    "read_policy",
    "reject_offer",
    "reject_result",
    "run_all",
    "run_round",
    "submit_result",
    "work",
]
