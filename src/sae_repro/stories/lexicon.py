"""The words of the embedded stories: lists, the concepts they carry, and their frequencies.

A *sense* is one use of a word. Most words have one; a homograph ("bat") has one per list that
names it, and it is the sense, not the spelling, that carries concepts. Lists that are parents of
concepts are long, so that no parent is the sum of a few frequent words: each has a head (the
first word alone is a quarter of it) and a tail that is too rare for a latent per word.
"""

from dataclasses import dataclass
from functools import cache

# Ranks of a Zipf list whose words are concepts of their own: the ones near or above 5 % of it.
HEAD = 6
TOP_SHARE = 0.25


@dataclass(frozen=True)
class WordList:
    """Words that fill the same slots.

    `concepts` are the concepts of every word here, the most specific first. With `zipf`, words are
    drawn by rank and the first HEAD of them are concepts too, children of `concepts[0]`; without,
    all words are equally likely.
    """

    words: tuple[str, ...]
    concepts: tuple[str, ...]
    zipf: bool = False


def _flat(words: str, *concepts: str) -> WordList:
    return WordList(tuple(words.split()), concepts)


def _zipf(words: str, *concepts: str) -> WordList:
    return WordList(tuple(words.split()), concepts, zipf=True)


# Concepts that have child concepts, child -> parent. Two kinds never cover their parent: the
# "other_*" lists hold members of no kind (and the verbs and adjectives have many such lists).
PARENTS = {
    "female_name": "name",
    "male_name": "name",
    "farm_animal": "animal",
    "wild_animal": "animal",
    "sweet_food": "food",
    "savoury_food": "food",
    "indoor_place": "place",
    "outdoor_place": "place",
    "toy": "object",
    "tool": "object",
    "speech_verb": "verb",
    "indoor_verb": "verb",
    "outdoor_verb": "verb",
    "glad_adjective": "adjective",
    "gloomy_adjective": "adjective",
}

TOPICS = ("music", "space", "ocean", "winter", "party", "sport")
TOPIC_SHARES = (0.24, 0.20, 0.17, 0.15, 0.13, 0.11)
SCENES = ("indoor", "outdoor")
SPEAKERS = ("female", "male", "child", "grown_up")

LISTS: dict[str, WordList] = {
    # People. A name of no kind is borne by girls and boys alike; the text says which.
    "female_name": _zipf(
        "Lily Mia Anna Emma Lucy Sara Ella Rosie Grace Zoe Molly Clara Daisy Ruby Nora Alice"
        " Hannah Julia Maya Eva",
        *("female_name", "name", "female"),
    ),
    "male_name": _zipf(
        "Tom Ben Jack Max Leo Tim Noah Luke Adam Peter Finn Oscar Henry David Jacob Felix Theo"
        " Hugo Oliver Marcus",
        *("male_name", "name", "male"),
    ),
    "other_name": _flat(
        "Robin Alex Charlie Jamie Casey Riley Jordan Taylor Morgan Quinn Avery Rowan Skyler Kim"
        " Andy Sasha",
        "name",
    ),
    "grown_up": _zipf(
        "mom dad grandpa uncle papa granddad grandma daddy auntie gramps mama pops granny nana"
        " pappy mommy nanny mum",
        "grown_up",
    ),
    "girl": _flat("girl", "child_noun", "female"),
    "boy": _flat("boy", "child_noun", "male"),
    # Things of two kinds.
    "farm_animal": _zipf(
        "cow pig horse sheep goat hen chicken donkey lamb rooster pony calf goose foal piglet ox"
        " mule bull",
        *("farm_animal", "animal"),
    ),
    "wild_animal": _zipf(
        "bear wolf fox lion deer tiger bat elephant monkey zebra owl giraffe hippo leopard moose"
        " badger panda otter",
        *("wild_animal", "animal"),
    ),
    "other_animal": _flat(
        "dog cat rabbit mouse bird frog snail turtle hamster beetle squirrel parrot", "animal"
    ),
    "sweet_food": _zipf(
        "cake cookie candy pie apple peach orange lollipop cupcake brownie cherry muffin pear"
        " donut banana pudding grape plum",
        *("sweet_food", "food"),
    ),
    "savoury_food": _zipf(
        "sandwich pizza potato carrot sausage burger chicken pickle pretzel cracker omelet taco"
        " dumpling noodle pea onion bean mushroom",
        *("savoury_food", "food"),
    ),
    "other_food": _flat(
        "pancake bun roll nut tomato pumpkin waffle bagel loaf snack crumpet squash", "food"
    ),
    "indoor_place": _zipf(
        "kitchen bedroom classroom library bathroom attic basement shop hallway museum office"
        " bakery pantry playroom hospital cellar theater lobby",
        *("indoor_place", "place"),
    ),
    "outdoor_place": _zipf(
        "garden beach park forest yard playground meadow hill lake river mountain field valley"
        " orchard lawn pond desert cliff",
        *("outdoor_place", "place"),
    ),
    "other_place": _flat(
        "school market station castle village harbor zoo bridge island temple camp tower", "place"
    ),
    "toy": _zipf(
        "ball doll kite puzzle balloon drum bat robot puppet marble truck block bicycle wagon"
        " scooter rattle skateboard crayon",
        *("toy", "object"),
    ),
    "tool": _zipf(
        "hammer shovel rake broom bucket ladder saw rope light wrench brush needle drill mop hoe"
        " pump axe spade",
        *("tool", "object"),
    ),
    "other_object": _flat(
        "book hat cup coin key shell ribbon stone blanket letter button feather", "object"
    ),
    "farm_home": _flat("barn stable coop pen paddock", "shelter"),
    "wild_home": _flat("den cave jungle burrow thicket", "shelter"),
    "container": _flat("bag box basket drawer pocket closet", "container"),
    "time": _flat("morning evening afternoon", "time_noun"),
    "noun": _flat("friend story home animal food thing dear", "plain_noun"),
    # Verbs. What is done depends on where, with what, in which mood.
    "speech_verb": _zipf(
        "said asked whispered shouted called replied answered yelled muttered begged added agreed"
        " explained announced promised declared murmured exclaimed",
        *("speech_verb", "verb"),
    ),
    "indoor_verb": _zipf(
        "read painted cooked drew slept studied baked rested sewed knitted swept dusted napped"
        " washed ironed typed tidied dined",
        *("indoor_verb", "verb"),
    ),
    "outdoor_verb": _zipf(
        "ran jumped climbed swam dug hiked skipped raced camped fished sailed strolled wandered"
        " jogged splashed explored gardened paddled",
        *("outdoor_verb", "verb"),
    ),
    "see": _flat("saw noticed spotted found watched discovered admired wanted liked loved", "verb"),
    "take": _flat("took grabbed carried lifted held kept bought hid", "verb"),
    "eat": _flat("ate tasted shared nibbled chewed finished", "verb"),
    "go": _flat("went walked hurried rushed drove returned", "verb"),
    "animal_deed": _flat("sniffed yawned stretched trotted crept hopped blinked snored", "verb"),
    "glad_deed": _flat("smiled cheered clapped grinned beamed danced", "verb"),
    "gloomy_deed": _flat("wept frowned sobbed sniffled pouted moped", "verb"),
    "toy_deed": _flat("played romped juggled clowned", "verb"),
    "tool_deed": _flat("worked toiled labored struggled", "verb"),
    "infinitive": _flat("park hide move hold clean show", "verb"),
    "plain_verb": _flat(
        "lived looked gave put hugged told dreamed tried like see come look thank", "verb"
    ),
    # Adjectives.
    "glad_adjective": _zipf(
        "happy proud glad excited cheerful joyful merry delighted thrilled pleased calm grateful"
        " hopeful lucky jolly playful eager content",
        *("glad_adjective", "adjective"),
    ),
    "gloomy_adjective": _zipf(
        "sad angry scared tired lonely worried upset afraid gloomy nervous cross grumpy jealous"
        " bored sorry shy miserable cranky",
        *("gloomy_adjective", "adjective"),
    ),
    "colour": _flat("red blue green yellow orange purple pink brown white black", "adjective"),
    "size": _flat("big small little tall tiny huge round soft light heavy", "adjective"),
    "sweet_taste": _flat("sugary sweet syrupy creamy juicy", "adjective"),
    "savoury_taste": _flat("salty spicy crunchy cheesy greasy", "adjective"),
    "plain_adjective": _flat("careful", "adjective"),
    # Topics: a lexicon each.
    "music": _flat("song piano guitar violin melody band concert", "lexicon:music"),
    "space": _flat("rocket moon planet star comet astronaut galaxy", "lexicon:space"),
    "ocean": _flat("ship sailor pirate treasure anchor coral wave", "lexicon:ocean"),
    "winter": _flat("snow ice sled snowman blizzard mitten icicle", "lexicon:winter"),
    "party": _flat("gift candle guest costume confetti cheer invitation", "lexicon:party"),
    "sport": _flat("soccer goal coach team trophy referee medal", "lexicon:sport"),
    # Closed classes; they have no child concepts.
    "female_pronoun": _flat("she her herself", "pronoun", "female"),
    "male_pronoun": _flat("he him his himself", "pronoun", "male"),
    "pronoun": _flat("it they i you your", "pronoun"),
    "determiner": _flat("the a this all", "determiner"),
    "preposition": _flat("in to at with from about of near", "preposition"),
    "conjunction": _flat("and but", "conjunction"),
    "auxiliary": _flat("was is be had", "auxiliary"),
    "naming": _flat("named", "naming_word"),
    "question": _flat("where what", "question_word"),
    "adverb": _flat("quickly slowly loudly softly gently again", "adverb"),
    "plain_adverb": _flat("there here then soon later once one very early back", "adverb"),
    "stop": _flat(". ! ?", "sentence_end", "punctuation"),
    "comma": _flat(",", "punctuation"),
    "opening_quote": _flat('"', "opening_quote", "punctuation"),
    "closing_quote": _flat('"', "closing_quote", "punctuation"),
}

FEMALE_GROWN_UPS = frozenset(
    {"mom", "grandma", "auntie", "mama", "granny", "nana", "mommy", "nanny", "mum"}
)
NAME_LISTS = ("female_name", "male_name", "other_name")
# A gendered pronoun and what the other gender has in its place; "her" stands for two cases.
OPPOSITES = {
    "she": ("he",),
    "he": ("she",),
    "her": ("him", "his"),
    "him": ("her",),
    "his": ("her",),
    "herself": ("himself",),
    "himself": ("herself",),
}
SENTENCE_ENDS = LISTS["stop"].words
QUOTE = '"'


@cache
def senses() -> tuple[tuple[str, str], ...]:
    """Every (list, word), in the order of LISTS: the position is the sense's id."""
    return tuple((name, word) for name, entry in LISTS.items() for word in entry.words)


@cache
def sense_ids() -> dict[tuple[str, str], int]:
    """The inverse of `senses`."""
    return {sense: index for index, sense in enumerate(senses())}


def vocabulary() -> list[str]:
    """Word types, punctuation included: a story token's id is its position here."""
    return list(dict.fromkeys(word for _, word in senses()))


def sense_concepts(list_name: str, word: str) -> tuple[str, ...]:
    """Names of all concepts that hold on `word` when it fills a slot of `list_name`."""
    entry = LISTS[list_name]
    head = entry.zipf and entry.words.index(word) < HEAD
    kin = "female" if word in FEMALE_GROWN_UPS else "male"
    return (
        *((f"{entry.concepts[0]}:{word}",) if head else ()),
        *entry.concepts,
        *((kin,) if list_name == "grown_up" else ()),
    )


def concept_parents() -> dict[str, str | None]:
    """Class concepts in a fixed order, parents before children, each with its parent."""
    order: dict[str, str | None] = {}
    for entry in LISTS.values():
        for concept in reversed(entry.concepts):
            order.setdefault(concept, PARENTS.get(concept))
    for entry in LISTS.values():
        if entry.zipf:
            order.update(
                {f"{entry.concepts[0]}:{w}": entry.concepts[0] for w in entry.words[:HEAD]}
            )
    return order


def shares(entry: WordList) -> list[float]:
    """Probability of each word of a list; they sum to one.

    A Zipf list's exponent is the one that gives its first word TOP_SHARE.
    """
    count = len(entry.words)
    if not entry.zipf:
        return [1 / count] * count
    low, high = 0.0, 3.0
    for _ in range(60):
        middle = (low + high) / 2
        if 1 / sum(rank**-middle for rank in range(1, count + 1)) < TOP_SHARE:
            low = middle
        else:
            high = middle
    weights = [rank**-low for rank in range(1, count + 1)]
    return [weight / sum(weights) for weight in weights]
