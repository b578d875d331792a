"""Word classes of English that the question rules need: closed classes in full, open ones by ending and common words.

Everything is lower case and tokenised as in the Meta-VQA release: ``man's`` is the two tokens ``man`` and ``'s``.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


WH_WORDS = _words("what which who whom whose where when why how")
DETERMINERS = _words(
    "the a an this that these those his her its their my your our some any each every both all most several another"
)
PRONOUNS = _words(
    "it he she they you we i him them everyone everybody someone somebody anyone anybody everything something"
)
DEMONSTRATIVES = _words("this that these those")
# "what kind of room" keeps "of room" behind the answer; "what mode of transport" gives way to it as a whole
KINDS = _words("kind kinds type types sort sorts brand brands breed breeds make model variety species")
PARTITIVES = KINDS | _words("color colors colour colours number amount piece body time method")
ATTRIBUTES = _words("color colors colour colours size shape brand material")
QUESTION_OPENERS = _words("and so but then now ok okay please hey hi well approximately roughly exactly")

BE = _words("is are was were am")
CONTRACTED_BE = {"'s": "is", "'re": "are"}
DO = _words("do does did")
HAVE = _words("has have had")
MODALS = _words("can could will would should must might may shall")
AUXILIARIES = BE | DO | MODALS | HAVE

PREPOSITIONS = _words(
    "about above across after against ahead along alongside amid among around as at atop away before behind below "
    "beneath beside besides between beyond by down during for from in inside into like near next of off on onto "
    "opposite out outside over past through throughout to toward towards under underneath until up upon via while "
    "with within without"
)
PLACE_ADVERBS = _words("here there back left right forward backwards upside together")

_ADJECTIVE_STEMS = _words(
    "big small large little tall short long high low deep wide thin thick fat old young new fast slow hot cold warm "
    "cool wet dry clean dirty dark light bright heavy happy sad hungry tired sleepy close far near strong rich poor "
    "safe cute pretty nice soft hard sharp smooth rough round flat ripe fresh busy empty full loud quiet clear cloudy "
    "sunny rainy windy red blue green yellow brown black white gray grey pink"
)
_OTHER_ADJECTIVES = _words(
    "orange purple tan beige gold silver alive asleep awake alone available dominant different edible female male "
    "healthy ill likely missing open closed present real sick similar sour sweet transparent unusual vacant visible "
    "wooden metal special important dangerous funny wrong strange odd different better best worse worst more"
)


def _compared(stem: str) -> set[str]:
    """Comparative and superlative: ``big`` gives ``bigger biggest``, ``happy`` gives ``happier happiest``."""
    if stem.endswith("y"):
        root = stem[:-1] + "i"
    elif stem.endswith("e"):
        root = stem[:-1]
    else:
        root = stem
    doubled = stem + stem[-1]
    return {form + ending for form in (root, doubled) for ending in ("er", "est")}


ADJECTIVES = _OTHER_ADJECTIVES.union(_ADJECTIVE_STEMS, *map(_compared, _ADJECTIVE_STEMS))

BASE_VERBS = _words(
    "appear attach be become belong bite break bring build buy call carry catch celebrate climb come contain cook cost "
    "cover cross cut dance describe do drink drive drop eat enjoy face fall feed feel find fly follow get give go grow "
    "hang happen have hit hold indicate jump keep kick know land laugh lay lead lean leave lie like listen live look "
    "love make mean move need offer open own paint park participate pay perform play point power prefer produce "
    "protect pull push put read reflect rent represent rest ride run say see seem sell serve shine show sit ski sleep "
    "smell smile spell stand start stay stop support surround swim swing symbolize take talk taste tell think throw "
    "touch travel turn use visit wait walk want wash watch weigh wear work write"
)
NEGATIONS = _words("n't not cannot never no")
LINKING_VERBS = _words("look feel taste smell sound seem appear looking feeling")
IRREGULAR_PASTS = _words(
    "ate blew broke built caught came cut drew drove fell flew gave hit made ran threw took won wrote"
)
IRREGULAR_PARTICIPLES = _words(
    "been bent bitten blown born bound broken brought built caught cut done drawn driven drunk eaten fed flown found "
    "frozen given grown held hidden hit hung kept known laid led lit lost made meant met paid put ridden said seen "
    "sent set shown shut sold spelled spent spread stuck sung swung taken taught thrown told torn tied won worn written"
)
_NOT_PARTICIPLES = _words("bed bleed breed feed hundred kid need red seed shed shred sled speed steed weed ted")
_NOUNS_IN_ING = _words(
    "anything awning bedding being building ceiling clothing covering crossing dressing drawing duckling earring "
    "evening everything filling flooring frosting icing king lighting lightning marking morning nothing painting "
    "pudding railing ring seating setting sibling siding something spring stocking string stuffing thing topping "
    "wedding wing wrapping writing"
)


def is_gerund(word: str) -> bool:
    """A verb in -ing: ``wearing``; not a noun such as ``ceiling``, ``building`` or ``flooring``."""
    return word == "being" or (len(word) > 4 and word.endswith("ing") and word not in _NOUNS_IN_ING)


def is_participle(word: str) -> bool:
    """A past participle: ``parked``, ``made``."""
    regular = len(word) > 3 and word.endswith("ed") and word not in _NOT_PARTICIPLES
    return regular or word in IRREGULAR_PARTICIPLES


def is_adverb(word: str) -> bool:
    """An adverb in -ly, as in "what is mainly featured"."""
    return len(word) > 4 and word.endswith("ly") and word not in {"family", "jelly", "belly", "butterfly", "ugly"}


def is_finite(word: str) -> bool:
    """A full verb that can follow its subject at once: ``holds``, ``happened``, ``made``, ``has``."""
    third_person = word.endswith("s") and (word[:-1] in BASE_VERBS or word.removesuffix("es") in BASE_VERBS)
    past = word.endswith("ed") and (word[:-2] in BASE_VERBS or word[:-1] in BASE_VERBS)
    return third_person or past or word in IRREGULAR_PASTS or word in HAVE
