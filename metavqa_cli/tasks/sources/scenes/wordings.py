"""How each family of questions is worded, with the statement that an answer completes.

``family: (slot, [(number, question, template)])``. ``{}`` in a template stands for the answer; ``{one}``, ``{many}``,
``{word}``, ``{where}`` and ``{category}`` for the argument. ``number`` says whether a wording fits one object, several,
or any number.
"""

from typing import Literal

Number = Literal["one", "many", "any"]
Wording = tuple[Number, str, str]

WORDINGS: dict[str, tuple[str, list[Wording]]] = {
    "count_kind": ("kind", [
        ("any", "How many {many} are there?", "there are {} {many}"),
        ("any", "How many {many} are in the picture?", "{} {many} are in the picture"),
        ("any", "How many {many} are in this image?", "{} {many} are in this image"),
        ("any", "How many {many} can you see?", "you can see {} {many}"),
        ("any", "How many {many} are shown?", "{} {many} are shown"),
        ("any", "How many {many} are in the scene?", "{} {many} are in the scene"),
        ("any", "How many {many} do you count?", "you count {} {many}"),
        ("any", "How many {many} are visible?", "{} {many} are visible"),
        ("any", "What is the number of {many}?", "the number of {many} is {}"),
        ("any", "How many {many} appear in the picture?", "{} {many} appear in the picture"),
        ("any", "How many {many} can you count?", "you can count {} {many}"),
        ("any", "How many {many} can be seen?", "{} {many} can be seen"),
        ("any", "How many {many} are there in the scene?", "there are {} {many} in the scene"),
        ("any", "How many {many} are there in the picture?", "there are {} {many} in the picture"),
        ("any", "What is the total number of {many}?", "the total number of {many} is {}"),
    ]),
    "count_color": ("color", [
        ("any", "How many {word} objects are there?", "there are {} {word} objects"),
        ("any", "How many things are {word}?", "{} things are {word}"),
        ("any", "How many {word} things are in the picture?", "{} {word} things are in the picture"),
        ("any", "How many {word} objects can you see?", "you can see {} {word} objects"),
        ("any", "How many objects are {word}?", "{} objects are {word}"),
    ]),
    "count_category": ("category", [
        ("any", "How many {many} are there?", "there are {} {many}"),
        ("any", "How many {many} are in the picture?", "{} {many} are in the picture"),
        ("any", "How many {many} can you see?", "you can see {} {many}"),
        ("any", "How many {many} are shown?", "{} {many} are shown"),
        ("any", "What is the number of {many}?", "the number of {many} is {}"),
    ]),
    "count_pattern": ("pattern", [
        ("any", "How many {word} objects are there?", "there are {} {word} objects"),
        ("any", "How many things are {word}?", "{} things are {word}"),
        ("any", "How many {word} things can you see?", "you can see {} {word} things"),
    ]),
    "count_side": ("side", [
        ("any", "How many objects are {where}?", "{} objects are {where}"),
        ("any", "How many things are {where}?", "{} things are {where}"),
        ("any", "How many things can you see {where}?", "you can see {} things {where}"),
        ("any", "How many objects are {where} of the picture?", "{} objects are {where} of the picture"),
    ]),
    "count_objects": ("", [
        ("any", "How many objects are there?", "there are {} objects"),
        ("any", "How many things are in the picture?", "{} things are in the picture"),
        ("any", "How many objects can you see?", "you can see {} objects"),
        ("any", "How many things are shown?", "{} things are shown"),
        ("any", "What is the total number of objects?", "the total number of objects is {}"),
    ]),
    "count_kinds": ("", [
        ("any", "How many kinds of objects are there?", "there are {} kinds of objects"),
        ("any", "How many different things are in the picture?", "{} different things are in the picture"),
        ("any", "How many types of objects can you see?", "you can see {} types of objects"),
        ("any", "How many different kinds of things are shown?", "{} different kinds of things are shown"),
    ]),
    "color_kind": ("kind", [
        ("one", "What color is the {one}?", "the {one} is {}"),
        ("one", "What is the color of the {one}?", "the color of the {one} is {}"),
        ("one", "Which color is the {one} in the picture?", "the {one} in the picture is {}"),
        ("one", "What color is this {one}?", "this {one} is {}"),
        ("one", "What color does the {one} have?", "the {one} has the color {}"),
        ("one", "What is the color of this {one}?", "the color of this {one} is {}"),
        ("many", "What color are the {many}?", "the {many} are {}"),
        ("many", "What is the color of the {many}?", "the color of the {many} is {}"),
        ("many", "Which color do the {many} have?", "the {many} have the color {}"),
        ("many", "Which color are the {many} in the picture?", "the {many} in the picture are {}"),
        ("many", "What color do the {many} have?", "the {many} have the color {}"),
        ("many", "What is the color of the {many} in the picture?", "the color of the {many} in the picture is {}"),
    ]),
    "color_position": ("position", [
        ("any", "What color is the object {where}?", "the object {where} is {}"),
        ("any", "What color is the thing {where}?", "the thing {where} is {}"),
        ("any", "What is the color of the object {where}?", "the color of the object {where} is {}"),
        ("any", "Which color can be seen {where}?", "{} can be seen {where}"),
    ]),
    "color_category": ("category", [
        ("any", "What color is the {one}?", "the {one} is {}"),
        ("any", "What is the color of the {one}?", "the color of the {one} is {}"),
        ("any", "What color are the {many}?", "the {many} are {}"),
    ]),
    "color_pattern": ("pattern", [
        ("any", "What color is the {word} object?", "the {word} object is {}"),
        ("any", "What color is the {word} thing?", "the {word} thing is {}"),
        ("any", "What is the color of the {word} object?", "the color of the {word} object is {}"),
    ]),
    "color_biggest": ("", [
        ("any", "What color is the biggest object?", "the biggest object is {}"),
        ("any", "What color is the largest thing?", "the largest thing is {}"),
        ("any", "What is the color of the biggest thing?", "the color of the biggest thing is {}"),
    ]),
    "color_left": ("kind", [
        ("any", "What color is the object to the left of the {one}?", "the object to the left of the {one} is {}"),
        ("any", "Which color can be seen to the left of the {one}?", "{} can be seen to the left of the {one}"),
    ]),
    "color_right": ("kind", [
        ("any", "What color is the object to the right of the {one}?", "the object to the right of the {one} is {}"),
        ("any", "Which color can be seen to the right of the {one}?", "{} can be seen to the right of the {one}"),
    ]),
    "position_kind": ("kind", [
        ("one", "Where is the {one}?", "the {one} is at the {}"),
        ("one", "In which part of the picture is the {one}?", "the {one} is in the {} of the picture"),
        ("one", "Where in the picture is the {one}?", "in the picture the {one} is at the {}"),
        ("many", "Where are the {many}?", "the {many} are at the {}"),
        ("many", "Where in the picture are the {many}?", "in the picture the {many} are at the {}"),
        ("many", "In which part of the picture are the {many}?", "the {many} are in the {} of the picture"),
    ]),
    "side_kind": ("kind", [
        ("any", "On which side is the {one}?", "the {one} is on the {}"),
        ("any", "Which side of the picture shows the {one}?", "the {} of the picture shows the {one}"),
    ]),
    "position_color": ("color", [
        ("any", "Where is the {word} object?", "the {word} object is at the {}"),
        ("any", "Where is the {word} thing?", "the {word} thing is at the {}"),
        ("any", "In which part of the picture is the {word} object?", "the {word} object is in the {} of the picture"),
    ]),
    "position_category": ("category", [
        ("any", "Where is the {one}?", "the {one} is at the {}"),
        ("any", "Where are the {many}?", "the {many} are at the {}"),
    ]),
    "position_pattern": ("pattern", [
        ("any", "Where is the {word} object?", "the {word} object is at the {}"),
        ("any", "Where is the {word} thing?", "the {word} thing is at the {}"),
    ]),
    "size_kind": ("kind", [
        ("one", "How big is the {one}?", "the {one} is {}"),
        ("one", "What size is the {one}?", "the size of the {one} is {}"),
        ("one", "How large is the {one} in the picture?", "the {one} in the picture is {}"),
        ("many", "What size are the {many}?", "the size of the {many} is {}"),
        ("many", "How big are the {many}?", "the {many} are {}"),
    ]),
    "size_color": ("color", [
        ("any", "How big is the {word} object?", "the {word} object is {}"),
        ("any", "What size is the {word} thing?", "the size of the {word} thing is {}"),
    ]),
    "pattern_kind": ("kind", [
        ("one", "What pattern is on the {one}?", "the {one} is {}"),
        ("one", "What pattern does the {one} have?", "the {one} has a {} pattern"),
        ("one", "What kind of pattern does the {one} have?", "the pattern of the {one} is {}"),
        ("many", "What pattern is on the {many}?", "the {many} are {}"),
        ("many", "What kind of pattern do the {many} have?", "the pattern of the {many} is {}"),
        ("many", "What pattern do the {many} have?", "the {many} have a {} pattern"),
    ]),
    "pattern_color": ("color", [
        ("any", "What pattern is on the {word} object?", "the {word} object is {}"),
        ("any", "What kind of pattern does the {word} thing have?", "the pattern of the {word} thing is {}"),
    ]),
    "left": ("neighbour", [
        ("any", "Which {category} is to the left of the {one}?", "the {} is to the left of the {one}"),
        ("any", "What {category} can you see to the left of the {one}?", "a {} is to the left of the {one}"),
    ]),
    "right": ("neighbour", [
        ("any", "Which {category} is to the right of the {one}?", "the {} is to the right of the {one}"),
        ("any", "What {category} can you see to the right of the {one}?", "a {} is to the right of the {one}"),
    ]),
    "above": ("neighbour", [
        ("any", "Which {category} is above the {one}?", "the {} is above the {one}"),
    ]),
    "below": ("neighbour", [
        ("any", "Which {category} is below the {one}?", "the {} is below the {one}"),
    ]),
    "which_category": ("category", [
        ("any", "What kind of {one} is this?", "this {one} is a {}"),
        ("any", "What kind of {one} is in the picture?", "the kind of {one} in the picture is {}"),
        ("any", "What type of {one} is shown?", "the type of {one} shown is {}"),
        ("any", "Which {one} can you see?", "you can see a {}"),
    ]),
    "which_color": ("colored", [
        ("any", "Which {category} is {word}?", "the {} is {word}"),
        ("any", "What kind of {category} is {word}?", "the {} is {word}"),
        ("any", "What {word} {category} is in the picture?", "the {word} {category} in the picture is a {}"),
    ]),
    "which_pattern": ("patterned", [
        ("any", "Which {category} is {word}?", "the {} is {word}"),
        ("any", "What kind of {category} is {word}?", "the {} is {word}"),
        ("any", "What {word} {category} can you see?", "the {word} {category} is a {}"),
    ]),
    "which_position": ("placed", [
        ("any", "Which {category} is {where}?", "the {} is {where}"),
        ("any", "What {category} can be seen {where}?", "a {} can be seen {where}"),
        ("any", "What kind of {category} is {where}?", "the {} is {where}"),
    ]),
    "place": ("", [
        ("any", "Where was this picture taken?", "this picture was taken at the {}"),
        ("any", "What place is this?", "this place is the {}"),
        ("any", "What kind of place is shown?", "the kind of place shown is the {}"),
        ("any", "What is in the background?", "the {} is in the background"),
        ("any", "Where is this?", "this is the {}"),
        ("any", "What type of landscape is this?", "this landscape is the {}"),
    ]),
    "time": ("", [
        ("any", "What time of day is it?", "the time of day is {}"),
        ("any", "When was this picture taken?", "this picture was taken at {}"),
        ("any", "What time is it?", "it is {}"),
        ("any", "Which part of the day is shown?", "the part of the day shown is {}"),
    ]),
    "weather": ("", [
        ("any", "What is the weather like?", "the weather is {}"),
        ("any", "How is the weather?", "the weather is {}"),
        ("any", "What kind of weather is it?", "it is {} weather"),
        ("any", "What is the weather in the picture?", "the weather in the picture is {}"),
        ("any", "What kind of day is it?", "it is a {} day"),
    ]),
}  # fmt: skip
