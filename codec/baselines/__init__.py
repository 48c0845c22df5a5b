"""The codecs of the paper's comparison behind the codec contract; `codec.zoo.load_codec` is the way in.

Every adapter encodes one clip at a time. Padding a clip to the length of another changes codes in each of these models: X-Codec and
X-Codec2 attend to the padding, DAC, SpeechTokenizer and WavTokenizer look ahead, and EnCodec and Mimi complete the last frame at
every strided layer from the clip's own edge. Equal lengths alone would not do either: the kernels of another batch size round
otherwise, and a rounding can move a code.
"""
