"""True captions of scenes, in the spirit of the paper's Appendix C.2: speaker, acoustic environment, music, sound events.

One to three plain sentences; the transcript of speech is quoted.
"""

from alm.data.demo.lexicon import ACCENTS
from alm.data.demo.questions import NUMBERS
from alm.data.demo.scenes import Facts, Scene

EVENT_PHRASES = {
    "doorbell": "a doorbell rings",
    "siren": "a siren wails",
    "dog": "a dog barks",
    "bird": "a bird chirps",
    "knocking": "someone knocks on a wooden door",
    "glass": "a glass breaks",
    "horn": "a car horn sounds",
    "clapping": "people are clapping",
    "telephone": "a telephone rings",
    "thunder": "thunder rolls",
}
TEXTURE_PHRASES = {
    "rain": "rain falls",
    "wind": "wind howls",
    "engine": "an engine hums",
    "fire": "a fire crackles",
    "waves": "waves roll in",
    "crickets": "crickets chirp",
    "music": "soft organ music plays",
}
UNIT_PHRASES = {
    "bark": "a dog bark",
    "knock": "a knock on wood",
    "honk": "a honk of a car horn",
    "beep": "an electronic beep",
}
GLIDE_PHRASES = {
    "rising": "rises in pitch",
    "falling": "falls in pitch",
    "steady": "stays at one pitch",
    "wavering": "wavers in pitch",
}
MOVE_PHRASES = {
    "rising": "A rising melody",
    "falling": "A falling melody",
    "steady": "A single repeated note",
    "alternating": "A melody that alternates between two notes",
}
TIMES = ("once", "twice", "three times", "four times")


def _environment(facts: Facts, dry: str) -> str:
    return "The room is reverberant." if facts["room"] else dry


def _speaker(facts: Facts, index: int = 0) -> str:
    who = facts["speakers"][index]
    return f"{who['sex']} with {ACCENTS[who['accent']]} accent"


def _article(facts: Facts, turn: int) -> str:
    """How the speaker of a turn of a conversation is brought in: a, the same, another."""
    who, before = facts["turns"][turn], facts["turns"][:turn]
    if who in before:
        return "the same"
    return "another" if facts["speakers"][who]["sex"] in [facts["speakers"][k]["sex"] for k in before] else "a"


def _speech(scene: Scene) -> str:
    f = scene.facts
    if scene.form == "conversation":
        said = [
            f'{_article(f, i)} {f["speakers"][who]["sex"]} says "{phrase}"'
            for i, (who, phrase) in enumerate(zip(f["turns"], f["phrases"], strict=True))
        ]
        count = len(f["speakers"])
        people = "One person speaks" if count == 1 else f"{NUMBERS[count - 1].capitalize()} people speak in turn"
        return f"{people}: {', then '.join(said)} {_environment(f, 'The recording is clean.')}"
    pace = {"slow": " slowly", "normal": " at a normal pace", "fast": " fast", "": ""}[f.get("rate", "")]
    spoken = f'A {_speaker(f)} says{pace}: "{f["text"]}"'
    if "background" in f:
        return f"{spoken} In the background {TEXTURE_PHRASES[f['background']]}."
    return f"{spoken} {_environment(f, 'The recording is clean, without background noise.')}"


def _sound(scene: Scene) -> str:
    f = scene.facts
    if scene.form == "event":
        behind = f"In the background {TEXTURE_PHRASES[f['background']]}."
        return f"{EVENT_PHRASES[f['event']].capitalize()}. {behind} No speech or music is present."
    room = _environment(f, "There is no reverberation.")
    if scene.form == "counting":
        return f"{UNIT_PHRASES[f['unit']].capitalize()} is heard {TIMES[f['count'] - 1]}. {room}"
    if scene.form == "order":
        first, last = (EVENT_PHRASES[label] for label in f["events"])
        return f"First {first}, then {last}. {room}"
    change = GLIDE_PHRASES[f["direction"]]
    return f"An electronic tone {change}. {room}"


def _music(scene: Scene) -> str:
    f = scene.facts
    room = _environment(f, "The recording is dry.")
    if scene.form == "rhythm":
        return f"Drums and a bass guitar play at a {f['tempo']} tempo. {room}"
    player = f"{'an' if f['instrument'] == 'organ' else 'a'} {f['instrument']}"
    if scene.form == "chord":
        how = "its notes together" if f["texture"] == "together" else "its notes one after another"
        return f"A {f['quality']} chord is played on {player}, {how}. {room}"
    if scene.form == "line":
        return f"{MOVE_PHRASES[f['direction']]} is played on {player}, without drums. {room}"
    return f"A tune is played on {player}, {'with' if f['drums'] else 'without'} drums. {room}"


def caption(scene: Scene) -> str:
    """One to three true sentences about the clip."""
    return {"speech": _speech, "sound": _sound, "music": _music}[scene.domain](scene).replace(".  ", ". ").strip()
